//! What a user is told when a node's lnd or the Store did not do what was asked.

use crate::error::{Error, StoreError};
use crate::lnd::{LndError, LndErrorKind};
use crate::model::problem::{Code, Refusal};
use crate::seal::SealError;
use std::net::{IpAddr, SocketAddr};

/// For an lnd's answer. lnd's own words are kept where they are an answer; how the node is reached, or that a macaroon of
/// ours does not fit, is not the user's business.
#[must_use]
pub fn lnd(error: &LndError) -> Refusal {
    use LndErrorKind as Kind;
    let lnds_words = |code| Refusal::new(code, without_places(&error.message));
    match error.kind {
        Kind::Unreachable | Kind::WrongCertificate => later(Code::NodeUnreachable, "the node cannot be reached"),
        Kind::Unknown => later(Code::NodeUnreachable, "the node did not answer"),
        Kind::WaitingToStart | Kind::RpcStarting | Kind::ServerStarting => {
            later(Code::NodeStarting, "the node's lnd is starting")
        }
        Kind::WalletNotCreated => later(Code::NodeCreating, "the node's wallet is not there yet"),
        Kind::WalletLocked => later(Code::NodeUnlocking, "the node's wallet is being unlocked"),
        Kind::NotSynced => later(Code::NodeNotSynced, "the node's lnd is not synced to the chain"),
        Kind::MacaroonRejected | Kind::WalletExists | Kind::WalletAlreadyUnlocked | Kind::WrongPassword => {
            tracing::error!(lnd.kind = ?error.kind, "an lnd refused what only this system decides");
            later(Code::NodeUnreachable, "the node cannot be used now")
        }
        Kind::NotFound => lnds_words(Code::LndNotFound),
        Kind::InsufficientFunds => lnds_words(Code::InsufficientFunds),
        Kind::AlreadyPaid => lnds_words(Code::AlreadyPaid),
        Kind::PeerOffline => lnds_words(Code::PeerUnreachable),
        Kind::AlreadyConnected | Kind::InvoiceExists | Kind::InTransition | Kind::PeerNotReady | Kind::Refused => {
            lnds_words(Code::LndRefused)
        }
    }
}

/// For the Store.
#[must_use]
pub fn store(error: &StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "the store does not answer");
            later(Code::StoreUnavailable, "the store does not answer")
        }
        StoreError::Conflict { .. } => later(Code::NotReady, "too much changes at once"),
        StoreError::Corrupt { .. } | StoreError::Invalid { .. } => {
            tracing::error!(%error, "the store was asked something impossible, or holds it");
            internal()
        }
    }
}

/// For anything inside.
#[must_use]
pub fn any(error: &Error) -> Refusal {
    match error {
        Error::Store(error) => store(error),
        Error::Lnd(error) => lnd(error),
        Error::Agent(_) => later(Code::NodeUnreachable, "the node's host does not answer"),
        Error::ClaimLost => later(Code::NotReady, "another master works on this node"),
        Error::Seal(SealError::UnknownKeyVersion { .. }) => {
            tracing::warn!(%error, "this master does not have the sealing key yet");
            later(Code::NotReady, "the sealing key is being changed")
        }
        Error::Seal(_) | Error::Invariant(_) => {
            tracing::error!(%error, "something that must be true is not");
            internal()
        }
    }
}

/// A defect of ours. What it is stands in the log, under the request's id.
#[must_use]
pub fn internal() -> Refusal {
    Refusal::new(Code::Internal, "a defect of the system; its log has the reason under this request's id")
}

fn later(code: Code, message: &str) -> Refusal {
    Refusal::new(code, message).retry_after(2)
}

/// lnd's own words, for an answer: without addresses and paths.
#[must_use]
pub fn words(error: &LndError) -> String {
    without_places(&error.message)
}

/// `message` with every literal address and every path left out.
fn without_places(message: &str) -> String {
    let words = message.split(' ').map(|word| if is_place(word) { "(hidden)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn is_place(word: &str) -> bool {
    let word = word.trim_end_matches([':', ',', ';', '.', ')', '"', '\'']).trim_start_matches(['(', '"', '\'']);
    let is_address = |text: &str| {
        let literal = text.trim_matches(['[', ']']);
        text.parse::<SocketAddr>().is_ok() || (text.contains(['.', ':']) && literal.parse::<IpAddr>().is_ok())
    };
    // `pubkey@address`, and Go's `read tcp address->address`.
    let last_part = word.rsplit_once('@').map_or(word, |(_, address)| address);
    let is_path = word.len() > 1 && word.starts_with('/');
    is_path || last_part.split("->").any(is_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lnds_words_are_kept_and_places_are_not() {
        let told = |kind, message: &str| {
            let refusal = lnd(&LndError::new(kind, message));
            (refusal.code, refusal.message)
        };
        let (code, message) = told(LndErrorKind::Refused, "cannot make connection to self");
        assert_eq!((code, message.as_str()), (Code::LndRefused, "cannot make connection to self"));
        let (code, message) = told(LndErrorKind::PeerOffline, "dial tcp 10.1.2.3:9735: connect: connection refused");
        assert_eq!((code, message.as_str()), (Code::PeerUnreachable, "dial tcp (hidden) connect: connection refused"));
        let (_, message) =
            told(LndErrorKind::Refused, "read tcp 127.0.0.1:1->127.0.0.2:2: (02ab@[::1]:9735) /a/tls.cert: no");
        assert_eq!(message, "read tcp (hidden) (hidden) (hidden) no");
        let (_, message) = told(LndErrorKind::Refused, "invoice for 1.5 BTC, 5/6 paid: too old");
        assert_eq!(message, "invoice for 1.5 BTC, 5/6 paid: too old");
    }

    #[test]
    fn what_is_ours_to_fix_says_nothing() {
        for kind in [LndErrorKind::MacaroonRejected, LndErrorKind::WrongPassword, LndErrorKind::WalletExists] {
            let refusal = lnd(&LndError::new(kind, "the root key is xyz"));
            assert_eq!(
                (refusal.code, refusal.message.as_str()),
                (Code::NodeUnreachable, "the node cannot be used now")
            );
        }
        let corrupt = StoreError::Corrupt { collection: "nodes", id: "n1".into(), reason: "data error".into() };
        assert_eq!(store(&corrupt), internal());
    }

    #[test]
    fn what_passes_says_when_to_ask_again() {
        for kind in
            [LndErrorKind::Unknown, LndErrorKind::Unreachable, LndErrorKind::NotSynced, LndErrorKind::WalletLocked]
        {
            assert!(lnd(&LndError::new(kind, "x")).retry_after.is_some());
        }
        assert!(any(&Error::ClaimLost).retry_after.is_some());
    }
}
