//! The wire types and gRPC clients of lnd, compiled from `proto/` by `proto/build.rs`.
//!
//! Every message serializes to the JSON that lnd's own REST gives for it (`lnd/json.rs`); those that carry secrets of
//! the wallet do not serialize, and their Debug shows nothing.

/// All of it as an encoded `google.protobuf.FileDescriptorSet`, comments included.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lnd.descriptor.bin"));

macro_rules! package {
    ($name:ident, $text:literal, $about:literal) => {
        #[doc = $about]
        #[allow(clippy::pedantic, deprecated, unused_imports, reason = "generated; what applies changes with it")]
        pub mod $name {
            use crate::lnd::json;
            tonic::include_proto!($text);
            include!(concat!(env!("OUT_DIR"), "/", $text, ".json.rs"));
        }
    };
}

package!(lnrpc, "lnrpc", "Lightning, State and WalletUnlocker.");
package!(routerrpc, "routerrpc", "Router: sending payments.");
package!(walletrpc, "walletrpc", "WalletKit: PSBTs, leases, fees.");
