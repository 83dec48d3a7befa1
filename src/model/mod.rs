//! The pure heart: ids, amounts, and the state machines of nodes, hosts and operations. It decides; it never acts. It
//! imports nothing of its siblings but `error` and what is sealed.

pub mod address;
pub mod amount;
pub mod app;
pub mod authority;
pub mod backups;
pub mod deployment;
pub mod host;
pub mod hosting;
pub mod ids;
pub mod invoice;
pub mod limits;
pub mod machine;
pub mod network;
pub mod node;
pub mod node_look;
pub mod onchain_address;
pub mod operation;
pub mod placing;
pub mod problem;
pub mod provision;
pub mod release;
pub mod rollout;
pub mod updates;
pub mod work;

pub use amount::{Msat, Sat};
pub use ids::{AppId, HostId, MasterId, NodeId, OperationId, Uuid};
pub use network::Network;
