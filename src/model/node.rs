//! A node: one user's lnd, its place, its secrets (sealed) and what is known of its state.

use super::amount::Sat;
use super::ids::{AppId, HostId, MasterId, NodeId, OperationId, Uuid};
use super::release::Sha256;
use crate::seal::Sealed;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use time::OffsetDateTime;

/// Where in its life a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// `create` is under way.
    Creating,
    /// `create` failed before a wallet existed; a new `create` may use the same document.
    Failed,
    /// In use.
    Ready,
    /// `delete` is under way.
    Deleting,
    /// Deleted: a tombstone that keeps the sealed secrets.
    Deleted,
}

/// The slot that a node has, or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The host.
    pub host: HostId,
    /// The slot on it.
    pub slot: u16,
}

/// How a node's lnd is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host's address.
    pub address: IpAddr,
    /// lnd's gRPC.
    pub rpc_port: u16,
    /// lnd's peer-to-peer port.
    pub p2p_port: u16,
    /// lnd's own REST, where it is switched on.
    pub rest_port: Option<u16>,
    /// lnd's certificate (PEM), the only one that is accepted.
    pub certificate_pem: String,
}

/// A node's secrets, each sealed for this node and field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Secrets {
    /// aezeed mnemonic, 24 words with a space between. Field `seed`.
    pub seed: Sealed,
    /// Wallet password. Field `wallet_password`.
    pub wallet_password: Sealed,
    /// Macaroon root key, 32 bytes. Field `macaroon_root_key`.
    pub macaroon_root_key: Sealed,
    /// Key from which preimages of idempotent invoices are derived, 32 bytes. Field `invoice_key`.
    pub invoice_key: Sealed,
}

/// The first funding by the treasury.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Funding {
    /// None was asked for.
    #[default]
    None,
    /// Asked for.
    Requested {
        /// How much.
        amount_sat: Sat,
    },
    /// The transaction was published.
    Published {
        /// How much.
        amount_sat: Sat,
        /// The transaction.
        txid: String,
    },
    /// The transaction has a confirmation.
    Confirmed {
        /// How much.
        amount_sat: Sat,
        /// The transaction.
        txid: String,
    },
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name inside.
    pub id: NodeId,
    /// The app it belongs to.
    pub app: AppId,
    /// What that app calls its user.
    pub uuid: Uuid,
    /// Where in its life it is.
    pub phase: Phase,
    /// The operation that creates it.
    pub create_operation: OperationId,
    /// Its slot.
    pub placement: Option<Placement>,
    /// How its lnd is reached, once it was started.
    pub endpoint: Option<Endpoint>,
    /// Its secrets; there before the wallet is.
    pub secrets: Option<Secrets>,
    /// Whether a wallet may exist (set in the commit before InitWallet): from then on nothing destroys it.
    pub wallet_may_exist: bool,
    /// Its identity (33 bytes, hexadecimal).
    pub identity_pubkey: Option<String>,
    /// An on-chain address of its wallet.
    pub deposit_address: Option<String>,
    /// Its first funding.
    pub funding: Funding,
    /// The lnd that it is to run: that of a release, by its artifact's digest. None: the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lnd: Option<Sha256>,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// (app, uuid) → node: the natural key that never expires. Its id is [`NodeName::id_of`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeName {
    /// The app.
    pub app: AppId,
    /// The user.
    pub uuid: Uuid,
    /// Their node.
    pub node: NodeId,
}

impl NodeName {
    /// The id of the document.
    #[must_use]
    pub fn id_of(app: &AppId, uuid: &Uuid) -> String {
        super::ids::digest_id(&[app.as_str(), uuid.as_str()])
    }
}

/// State of the wallet, after lnrpc.WalletState.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletState {
    /// lnd is not running, or has not said.
    #[default]
    Unknown,
    /// There is no wallet.
    NonExisting,
    /// There is one, locked.
    Locked,
    /// Unlocked, RPC not there yet.
    Unlocked,
    /// RPC is there, the chain may not be synced.
    RpcActive,
    /// Everything is there.
    ServerActive,
    /// lnd waits to become the leader.
    WaitingToStart,
}

/// Whether an lnd's process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "process", rename_all = "snake_case")]
pub enum Process {
    /// Nothing is known.
    #[default]
    Unknown,
    /// It runs.
    Running,
    /// It has exited and will be started again by the agent.
    Restarting {
        /// The last line of its log.
        reason: String,
    },
    /// It was stopped by an order; the exit is confirmed.
    Stopped,
}

/// What the host's agent last said about a node. A document of its own, since reports come while workflows write the
/// node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runtime {
    /// The node.
    pub node: NodeId,
    /// The host that said it.
    pub host: HostId,
    /// Its generation.
    pub generation: u64,
    /// Number of the report; older ones never replace newer ones.
    pub sequence: u64,
    /// The process.
    pub process: Process,
    /// The wallet.
    pub wallet: WalletState,
    /// Counts starts of the process: a new number means a new process.
    pub starts: u64,
    /// When this was written.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// A static channel backup as lnd wrote it (encrypted by lnd with a key of the seed). Every version is a document, for as
/// long as [`super::backups::is_kept`] says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    /// The node.
    pub node: NodeId,
    /// Counts from 1 within a node.
    pub number: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
    /// The packed multi-channel backup, base64.
    pub bytes: String,
    /// The channels it covers, once lnd said so (VerifyChanBackup); none: not verified yet.
    pub channel_points: Option<Vec<String>>,
    /// When it came.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl Backup {
    /// The id of the document.
    #[must_use]
    pub fn id_of(node: &NodeId, number: u64) -> String {
        format!("{node}-{number:010}")
    }
}

/// Which backup of a node is the one to restore: never one that covers fewer channels, unless those are closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackupHead {
    /// The node.
    pub node: NodeId,
    /// The host that sent the newest one.
    pub host: HostId,
    /// Its generation.
    pub generation: u64,
    /// Number of the report it came in; older ones from that host are repetitions.
    pub sequence: u64,
    /// The number of the newest backup that was received.
    pub newest: u64,
    /// The number of the newest one that was verified to cover all open channels.
    pub good: Option<u64>,
}

/// The channel point that a close has frozen: (node, channel point) → operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClosePointer {
    /// The node.
    pub node: NodeId,
    /// `txid:index`.
    pub channel_point: String,
    /// The operation that closes it.
    pub operation: OperationId,
}

impl ClosePointer {
    /// The id of the document.
    #[must_use]
    pub fn id_of(node: &NodeId, channel_point: &str) -> String {
        super::ids::digest_id(&[node.as_str(), channel_point])
    }
}

/// The payment that an invoice has or had: (node, payment hash) → the newest operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentPointer {
    /// The node.
    pub node: NodeId,
    /// The payment hash, hexadecimal.
    pub payment_hash: String,
    /// The newest operation for it.
    pub operation: OperationId,
}

impl PaymentPointer {
    /// The id of the document.
    #[must_use]
    pub fn id_of(node: &NodeId, payment_hash: &str) -> String {
        super::ids::digest_id(&[node.as_str(), payment_hash])
    }
}

/// Who holds the unfinished work of a node, or of the treasury. A document of its own, so that every commit of the work
/// can be made conditional on it without being disturbed by other writes of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The node's id, or `treasury`.
    pub subject: String,
    /// The holder; none once it was released.
    pub holder: Option<MasterId>,
    /// Grows by one with every claim; orders to agents carry it.
    pub epoch: u64,
}

/// A master's heartbeat. A claim whose holder's `beat` has not changed for `lease_ttl` + 2 s of the observer's own clock
/// is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The master's incarnation.
    pub master: MasterId,
    /// Grows by one with every beat.
    pub beat: u64,
    /// How long a beat is good for, milliseconds.
    pub ttl_ms: u64,
    /// The versions of the sealing key that this master is proven to have. None of a program that does not tell.
    #[serde(default)]
    pub keys: Vec<u32>,
    /// What it knows of the deployment's authorities. None of a program that does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<Authorities>,
}

/// A master's authorities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// The step of the deployment's authority document that it has taken up: it believes and issues by what that says.
    pub step: u64,
    /// The fingerprint of the one that has issued the certificate that it shows.
    pub shown: String,
}
