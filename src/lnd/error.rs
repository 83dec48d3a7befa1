//! What a call to an lnd can come back with, told apart by what the caller may do next.
//!
//! lnd sends most of its refusals as gRPC `Unknown` with a Go error's text, so the text decides. A status that did not
//! come from lnd (a broken connection, a deadline) is never read as a refusal: the effect may have happened.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;

use tonic::{Code, ConnectError, Status};

use super::tls::is_wrong_certificate;

/// What went wrong, as far as it changes what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LndErrorKind {
    /// No connection: nothing was sent.
    Unreachable,
    /// Something else than the pinned certificate answers there: nothing was sent.
    WrongCertificate,
    /// The connection broke or the deadline passed. What was asked for may have happened, or happen still.
    Unknown,

    /// lnd has not begun to start.
    WaitingToStart,
    /// There is no wallet yet.
    WalletNotCreated,
    /// The wallet waits to be unlocked.
    WalletLocked,
    /// Between the unlock and the first RPC.
    RpcStarting,
    /// RPC works, peers and channels do not yet.
    ServerStarting,
    /// The chain is not caught up.
    NotSynced,

    /// InitWallet or GenSeed where a wallet exists.
    WalletExists,
    /// A call of WalletUnlocker after the unlock.
    WalletAlreadyUnlocked,
    /// The wallet's password is another one.
    WrongPassword,

    /// The macaroon is not good for this call: wrong key, too narrow, or past its time.
    MacaroonRejected,
    /// The peer is connected already.
    AlreadyConnected,
    /// The peer is not connected, so nothing can be agreed with it.
    PeerOffline,
    /// The peer takes no channel just now: it catches up with the chain, or has as many pending ones as it wants.
    PeerNotReady,
    /// No such invoice, payment, node, transaction or channel.
    NotFound,
    /// An invoice with this payment hash exists.
    InvoiceExists,
    /// The payment succeeded earlier.
    AlreadyPaid,
    /// The payment is under way.
    InTransition,
    /// There is not enough money that can be spent now.
    InsufficientFunds,
    /// lnd's own no, for a reason in the message.
    Refused,
}

/// A call to an lnd that did not give what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LndError {
    pub kind: LndErrorKind,
    /// lnd's own words where it answered, without the addresses in them; else ours.
    pub message: String,
}

impl fmt::Display for LndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for LndError {}

impl LndErrorKind {
    /// Whether lnd certainly did nothing of what was asked: it never heard of it, or it said no.
    ///
    /// An opening of a channel is the exception lnd makes: after a no that came from the peer's silence it may still
    /// go on, so look for the channel whatever this says.
    pub fn is_definite(self) -> bool {
        self != Self::Unknown
    }

    /// Whether the same call may succeed later without anything else being changed.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Unreachable
            | Self::Unknown
            | Self::WaitingToStart
            | Self::RpcStarting
            | Self::ServerStarting
            | Self::NotSynced
            | Self::PeerOffline
            | Self::PeerNotReady
            | Self::InTransition => true,
            Self::WrongCertificate
            | Self::WalletNotCreated
            | Self::WalletLocked
            | Self::WalletExists
            | Self::WalletAlreadyUnlocked
            | Self::WrongPassword
            | Self::MacaroonRejected
            | Self::AlreadyConnected
            | Self::NotFound
            | Self::InvoiceExists
            | Self::AlreadyPaid
            | Self::InsufficientFunds
            | Self::Refused => false,
        }
    }

    /// Whether the lnd is there but not ready for calls.
    pub fn is_not_ready(self) -> bool {
        matches!(
            self,
            Self::WaitingToStart
                | Self::WalletNotCreated
                | Self::WalletLocked
                | Self::RpcStarting
                | Self::ServerStarting
                | Self::NotSynced
        )
    }
}

impl LndError {
    pub fn new(kind: LndErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// For an answer that breaks lnd's own contract.
    pub(super) fn unexpected(message: impl Into<String>) -> Self {
        Self::new(LndErrorKind::Unknown, message)
    }

    /// Safe to call again at once without asking what became of it: nothing was sent, or (with `read_only`) nothing
    /// can have been changed.
    pub fn retryable(&self, read_only: bool) -> bool {
        match self.kind {
            LndErrorKind::Unreachable => true,
            LndErrorKind::Unknown => read_only,
            _ => false,
        }
    }
}

impl From<Status> for LndError {
    fn from(status: Status) -> Self {
        if let Some(source) = status.source() {
            return from_transport(source);
        }
        let message = status.message();
        let kind = by_text(message).unwrap_or_else(|| by_code(&status));
        let message = if message.is_empty() { status.code().description() } else { message };
        Self::new(kind, without_addresses(&printable(message)))
    }
}

/// An lnd is only as good as its host, and its words go into logs and answers: on one line, and not too long.
fn printable(message: &str) -> String {
    message.chars().take(MOST_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The longest message that is kept, characters.
const MOST_WORDS: usize = 500;

/// lnd names the addresses of peers, and those of the fleet are nobody's business.
fn without_addresses(message: &str) -> String {
    let is_address = |text: &str| text.parse::<SocketAddr>().is_ok();
    let mut words = Vec::new();
    for word in message.split(' ') {
        let plain = word.trim_end_matches([':', ',', '.', ')']);
        let end = &word[plain.len()..];
        match plain.rsplit_once('@') {
            Some((name, address)) if is_address(address) => words.push(format!("{name}{end}")),
            _ if !is_address(plain) => words.push(word.to_owned()),
            _ => {}
        }
    }
    words.join(" ")
}

/// A status that was made on this side. The texts are ours, because the library's name addresses.
fn from_transport(source: &(dyn StdError + 'static)) -> LndError {
    if is_wrong_certificate(source) {
        return LndError::new(LndErrorKind::WrongCertificate, "another server answers in the node's place");
    }
    let mut next = Some(source);
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return LndError::new(LndErrorKind::Unreachable, "the node cannot be reached");
        }
        next = error.source();
    }
    LndError::new(LndErrorKind::Unknown, "the connection to the node broke")
}

/// lnd's texts, as parts of its messages. The first that fits counts.
const TEXTS: &[(&str, LndErrorKind)] = &[
    // tonic's own words where its connection is gone: nothing was sent.
    ("Service was not ready", LndErrorKind::Unreachable),
    ("context canceled", LndErrorKind::Unknown),
    ("context deadline exceeded", LndErrorKind::Unknown),
    ("shutting down", LndErrorKind::Unknown),
    ("server exiting", LndErrorKind::Unknown),
    ("waiting to start", LndErrorKind::WaitingToStart),
    ("wallet not created", LndErrorKind::WalletNotCreated),
    ("wallet not found", LndErrorKind::WalletNotCreated),
    ("wallet locked", LndErrorKind::WalletLocked),
    ("wallet already unlocked", LndErrorKind::WalletAlreadyUnlocked),
    ("wallet already exists", LndErrorKind::WalletExists),
    ("invalid passphrase for master public key", LndErrorKind::WrongPassword),
    ("RPC server is in the process of starting", LndErrorKind::RpcStarting),
    ("server is still in the process of starting", LndErrorKind::ServerStarting),
    ("before the wallet is fully synced", LndErrorKind::NotSynced),
    ("already connected to peer", LndErrorKind::AlreadyConnected),
    ("is not connected", LndErrorKind::PeerOffline),
    ("is not online", LndErrorKind::PeerOffline),
    ("while peer is offline", LndErrorKind::PeerOffline),
    ("dial tcp", LndErrorKind::PeerOffline),
    ("invoice with payment hash already exists", LndErrorKind::InvoiceExists),
    ("invoice is already paid", LndErrorKind::AlreadyPaid),
    ("payment is in transition", LndErrorKind::InTransition),
    ("payment already exists", LndErrorKind::InTransition),
    ("not enough witness outputs", LndErrorKind::InsufficientFunds),
    ("insufficient funds available", LndErrorKind::InsufficientFunds),
    ("reserved wallet balance invalidated", LndErrorKind::InsufficientFunds),
    ("outpoint already spent or locked", LndErrorKind::InsufficientFunds),
    ("permission denied", LndErrorKind::MacaroonRejected),
    ("verification failed:", LndErrorKind::MacaroonRejected),
    ("macaroon has expired", LndErrorKind::MacaroonRejected),
    ("expected 1 macaroon", LndErrorKind::MacaroonRejected),
    ("cannot get macaroon", LndErrorKind::MacaroonRejected),
    ("cannot decode macaroon", LndErrorKind::MacaroonRejected),
    ("channel not found", LndErrorKind::NotFound),
    ("unable to find node", LndErrorKind::NotFound),
    ("can not find transaction", LndErrorKind::NotFound),
    ("unknown output", LndErrorKind::NotFound),
];

/// What comes before a peer's own words in those of our lnd (funding/manager.go).
const PEERS_WORDS: &str = "received funding error from ";

/// What a peer says why it takes no channel: it says what it likes, so nothing else is read in it.
const PEER_NOT_READY: &[&str] = &[
    // What an lnd that has not heard of the newest block yet tells its peer (funding/manager.go hides "Synchronizing
    // blockchain", which older ones said, behind these words).
    "funding failed due to internal error",
    "Synchronizing blockchain",
    "pending channels exceed maximum",
];

fn by_text(message: &str) -> Option<LndErrorKind> {
    if let Some((_, theirs)) = message.split_once(PEERS_WORDS) {
        let waits = PEER_NOT_READY.iter().any(|text| theirs.contains(text));
        return Some(if waits { LndErrorKind::PeerNotReady } else { LndErrorKind::Refused });
    }
    TEXTS.iter().find(|(text, _)| message.contains(text)).map(|&(_, kind)| kind)
}

/// Where the text says nothing: by the code. What lnd does not send by itself comes from the transport below it.
fn by_code(status: &Status) -> LndErrorKind {
    match status.code() {
        Code::NotFound => LndErrorKind::NotFound,
        Code::AlreadyExists => LndErrorKind::InTransition,
        Code::Unauthenticated | Code::PermissionDenied => LndErrorKind::MacaroonRejected,
        Code::Unknown
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::ResourceExhausted => LndErrorKind::Refused,
        Code::Ok
        // An answer that is too long for us, too.
        | Code::OutOfRange
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => LndErrorKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(code: Code, message: &str) -> LndErrorKind {
        LndError::from(Status::new(code, message)).kind
    }

    #[test]
    fn lnds_texts_are_told_apart() {
        for (text, expected) in [
            ("waiting to start, RPC services not available", LndErrorKind::WaitingToStart),
            ("wallet not created, create one to enable full RPC access", LndErrorKind::WalletNotCreated),
            ("wallet locked, unlock it to enable full RPC access", LndErrorKind::WalletLocked),
            (
                "wallet already unlocked, WalletUnlocker service is no longer available",
                LndErrorKind::WalletAlreadyUnlocked,
            ),
            (
                "the RPC server is in the process of starting up, but not yet ready to accept calls",
                LndErrorKind::RpcStarting,
            ),
            ("server is still in the process of starting", LndErrorKind::ServerStarting),
            ("already connected to peer: 02aa@127.0.0.1:9735", LndErrorKind::AlreadyConnected),
            ("unable to disconnect peer: peer 02aa is not connected", LndErrorKind::PeerOffline),
            (
                "not enough witness outputs to create funding transaction, need 0.01 BTC only have 0 BTC available",
                LndErrorKind::InsufficientFunds,
            ),
            ("verification failed: signature mismatch after caveat verification", LndErrorKind::MacaroonRejected),
            (
                "caveat \"time-before 2026-11-23T09:08:15Z\" not satisfied: macaroon has expired",
                LndErrorKind::MacaroonRejected,
            ),
            (
                "received funding error from 02aa: chan_id=00, err=funding failed due to internal error",
                LndErrorKind::PeerNotReady,
            ),
            (
                "received funding error from 02aa: chan_id=00, err=Number of pending channels exceed maximum",
                LndErrorKind::PeerNotReady,
            ),
            ("permission denied", LndErrorKind::MacaroonRejected),
            ("context deadline exceeded", LndErrorKind::Unknown),
            ("cannot make connection to self", LndErrorKind::Refused),
        ] {
            assert_eq!(kind(Code::Unknown, text), expected, "{text}");
        }
        let exists = Code::AlreadyExists;
        assert_eq!(kind(exists, "invoice is already paid"), LndErrorKind::AlreadyPaid);
        assert_eq!(kind(exists, "payment is in transition"), LndErrorKind::InTransition);
        assert_eq!(kind(Code::NotFound, "unable to locate invoice"), LndErrorKind::NotFound);
    }

    #[test]
    fn a_peer_cannot_put_words_into_our_lnds_mouth() {
        for theirs in ["invoice is already paid", "not enough witness outputs", "permission denied", "context canceled"]
        {
            let message = format!("received funding error from 02aa: chan_id=00, err={theirs}");
            assert_eq!(kind(Code::Unknown, &message), LndErrorKind::Refused, "{theirs}");
        }
    }

    #[test]
    fn messages_are_one_line_and_not_too_long() {
        let error = LndError::from(Status::unknown("no\n2026-11-23 ALARM\u{1b}[31m"));
        assert_eq!(error.message, "no 2026-11-23 ALARM [31m");
        assert_eq!(LndError::from(Status::unknown("é".repeat(10_000))).message.chars().count(), MOST_WORDS);
    }

    #[test]
    fn a_lost_connection_is_never_a_refusal() {
        for code in [
            Code::OutOfRange,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Unavailable,
            Code::Internal,
            Code::Aborted,
        ] {
            let error = LndError::from(Status::new(code, "whatever"));
            assert_eq!(error.kind, LndErrorKind::Unknown);
            assert!(!error.kind.is_definite());
            assert!(error.retryable(true) && !error.retryable(false));
        }
        let local = Status::from_error(Box::new(std::io::Error::other("10.0.0.1:10009 broke")));
        let error = LndError::from(local);
        assert_eq!(error.kind, LndErrorKind::Unknown);
        assert!(!error.message.contains("10.0.0.1"), "no address in a message of ours");
    }

    #[test]
    fn messages_name_no_address() {
        for (given, shown) in [
            ("dial tcp 10.0.0.7:9735: connect: connection refused", "dial tcp connect: connection refused"),
            ("already connected to peer: 02aa@10.0.0.7:9735", "already connected to peer: 02aa"),
            ("peer 02aa@[::1]:9735, gone", "peer 02aa, gone"),
            ("need 0.5 BTC only have 0 BTC: a:b 12:30", "need 0.5 BTC only have 0 BTC: a:b 12:30"),
        ] {
            assert_eq!(LndError::from(Status::unknown(given)).message, shown);
        }
    }

    #[test]
    fn a_failed_connect_is_known_to_have_sent_nothing() {
        let local = Status::from_error(Box::new(ConnectError("refused".into())));
        let error = LndError::from(local);
        assert_eq!(error.kind, LndErrorKind::Unreachable);
        assert!(error.retryable(false));
    }
}
