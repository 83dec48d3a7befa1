//! Releases: what the hosts of a deployment are to run, as its operator has written and signed it. A manifest is a TOML file
//! (`deploy/fleet.toml` shows one) with a detached minisign signature beside it. Nothing of it counts before its signature
//! by a trusted key is verified; nothing that it names is run before its digest is.

pub mod download;
pub mod manifest;
pub mod signature;
pub mod signing;

pub use manifest::{Manifest, ManifestError};
pub use signature::{SignatureError, TrustedKey, TrustedKeys};
