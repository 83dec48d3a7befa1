//! A manifest as it is written: TOML, its signature beside it.

use super::signature::{KeyId, SignatureError, TrustedKeys};
use crate::model::release::Release;

/// No manifest is longer.
pub const MOST_BYTES: usize = 256 * 1024;

/// A release with the bytes that were signed, from which others can make sure for themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it says.
    pub release: Release,
    /// The file, exactly.
    pub text: String,
    /// The file of its signature.
    pub signature: String,
    /// Whose signature it is.
    pub signed_by: KeyId,
}

/// Why a manifest is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is too long.
    #[error("a manifest has at most {MOST_BYTES} bytes")]
    TooLong,
    /// It is not believed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Something in it is wrong.
    #[error("line {line}, column {column}: {message}")]
    Malformed {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What.
        message: String,
    },
    /// It makes no sense as a whole.
    #[error("{0}")]
    Senseless(String),
}

impl Manifest {
    /// Reads one. Nothing of it is looked at before its signature.
    ///
    /// # Errors
    /// It is not signed by one of these keys, or what they signed is no manifest.
    pub fn verify(text: &[u8], signature: &str, trusted: &TrustedKeys) -> Result<Self, ManifestError> {
        if text.len() > MOST_BYTES {
            return Err(ManifestError::TooLong);
        }
        let signed_by = trusted.verify(text, signature)?;
        let (text, release) = parse(text)?;
        Ok(Self { release, text, signature: signature.to_owned(), signed_by })
    }
}

/// What a manifest says, whoever has signed it, if anybody has.
///
/// # Errors
/// Where it is wrong, and what.
pub fn parse(text: &[u8]) -> Result<(String, Release), ManifestError> {
    if text.len() > MOST_BYTES {
        return Err(ManifestError::TooLong);
    }
    let text = std::str::from_utf8(text).map_err(|error| {
        let valid = String::from_utf8_lossy(text.get(..error.valid_up_to()).unwrap_or_default()).into_owned();
        malformed(&valid, valid.len(), "is not UTF-8".to_owned())
    })?;
    let release: Release = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        malformed(text, at, error.message().to_owned())
    })?;
    match release.fault() {
        Some(fault) => Err(ManifestError::Senseless(fault)),
        None => Ok((text.to_owned(), release)),
    }
}

fn malformed(text: &str, at: usize, message: String) -> ManifestError {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    ManifestError::Malformed { line, column, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Network;
    use crate::model::provision::Arch;
    use crate::model::release::{Unfit, Version};
    use std::time::Duration;
    use time::macros::datetime;

    const EXAMPLE: &str = include_str!("../../deploy/fleet.toml");

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn the_example_in_deploy_is_one() {
        let (_, release) = parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((release.deployment.as_str(), release.network), ("example", Network::Regtest));
        let lnd = release.lnd.as_ref().unwrap();
        assert_eq!(lnd.version.as_str(), "0.21.2-beta");
        assert!(lnd.may_follow(&version("0.20.1-beta")) && !lnd.may_follow(&version("0.19.3-beta")));
        assert!(!lnd.may_revert_to(&version("0.20.1-beta")));
        assert!(lnd.artifacts[&Arch::Arm64].url.is_archive());
        assert!(release.lndserver.is_some());
        assert_eq!(release.rollout.bake, Duration::from_secs(600));
    }

    #[test]
    fn settings_of_the_rollout_have_defaults() {
        let start = EXAMPLE.find("[rollout]").unwrap();
        let (_, whole) = parse(EXAMPLE.as_bytes()).unwrap();
        let (_, without) = parse(&EXAMPLE.as_bytes()[..start]).unwrap();
        assert_eq!(whole.rollout, without.rollout, "the example shows the defaults");
    }

    fn fault(from: &str, to: &str) -> String {
        assert_eq!(EXAMPLE.matches(from).count(), 1, "{from}");
        parse(EXAMPLE.replace(from, to).as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let line_of = |text: &str| EXAMPLE[..EXAMPLE.find(text).unwrap()].matches('\n').count() + 1;
        let (serial, canaries) = (line_of("serial = "), line_of("canaries = "));
        insta::assert_snapshot!(
            [
                fault("serial = 7", "serial = "),
                fault("serial = 7", "serial = -1"),
                fault("serial = 7", "serial = 0"),
                fault("serial = 7", "serial = 7\ncolour = 1"),
                fault("format = 1", "format = 2"),
                fault("\"regtest\"", "\"mainet\""),
                fault("2027-12-31T00:00:00Z", "2027-12-31"),
                fault("canaries = 1", "canaries = 0"),
                fault("bake_seconds = 600", "bake_seconds = 9999999"),
                fault("version = \"0.21.2-beta\"", "version = \"v0.21.2-beta\""),
            ]
            .join("\n")
            .replace(&format!("line {serial},"), "line SERIAL,")
            .replace(&format!("line {canaries},"), "line CANARIES,")
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let fault = |from: &str, to: &str| fault(from, to);
        assert_eq!(
            fault("update_from = [\"0.20.0-beta\", \"0.20.1-beta\"]", "update_from = [\"0.21.2-beta\"]"),
            "[lnd] has its own version in update_from"
        );
        assert_eq!(
            fault("revert_to = [] # of lnd", "revert_to = [\"0.18.0-beta\"] #"),
            "[lnd] has a version in revert_to that is not in update_from"
        );
        let head = &EXAMPLE[..EXAMPLE.find("[lnd]").unwrap()];
        assert_eq!(parse(head.as_bytes()).unwrap_err().to_string(), "names neither an lnd nor an lndserver");
    }

    #[test]
    fn artifacts_come_over_https_or_from_this_machine() {
        let url = "https://downloads.example/lnd-linux-arm64-v0.21.2-beta.tar.gz";
        for good in ["http://127.0.0.1:8000/lnd", "http://[::1]:8000/lnd.tgz?x=1", "https://a.example/lnd"] {
            parse(EXAMPLE.replace(url, good).as_bytes()).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in ["http://10.0.0.1/lnd", "http://localhost/lnd", "ftp://a.example/lnd", "https:///lnd", "lnd", ""] {
            assert!(fault(url, bad).contains("is not a URL that begins with https://"), "{bad}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_place() {
        let error = parse(b"format = 1\nx = \"\xff\"").unwrap_err();
        assert_eq!(error.to_string(), "line 2, column 6: is not UTF-8");
        assert_eq!(parse(&vec![b'#'; MOST_BYTES + 1]), Err(ManifestError::TooLong));
    }

    #[test]
    fn a_release_is_for_one_deployment_one_network_and_a_time() {
        let (_, release) = parse(EXAMPLE.as_bytes()).unwrap();
        let now = datetime!(2026-11-24 00:00 UTC);
        assert_eq!(release.fits("example", Network::Regtest, now), Ok(()));
        assert!(matches!(release.fits("exampl", Network::Regtest, now), Err(Unfit::OtherDeployment { .. })));
        assert!(matches!(release.fits("example", Network::Mainnet, now), Err(Unfit::OtherNetwork { .. })));
        let late = release.fits("example", Network::Regtest, release.expires_at);
        assert!(matches!(late, Err(Unfit::Expired { .. })));
    }

    #[test]
    fn nothing_is_read_before_the_signature() {
        let none = Manifest::verify(b"not even toml", "", &TrustedKeys::default());
        assert_eq!(none, Err(ManifestError::Signature(SignatureError::Form)));
    }

    #[test]
    fn lnds_own_words_are_versions() {
        let told = |text: &str| Version::of_lnd(text).map(|(version, commit)| (String::from(version), commit));
        assert_eq!(told("0.21.2-beta commit="), Some(("0.21.2-beta".to_owned(), None)));
        let commit = Some("v0.21.2-beta".to_owned());
        assert_eq!(told("0.21.2-beta commit=v0.21.2-beta"), Some(("0.21.2-beta".to_owned(), commit)));
        assert_eq!(told("lnd"), None);
    }
}
