//! PLACEHOLDER until the `agent` helper lands the real src/lndserver (take yours; keep these signatures: src/app uses them).
use crate::{
    error::AgentError,
    model::{NodeId, host::Host, node::Endpoint},
};
#[derive(Debug)]
pub struct Agents;
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    pub host: &'a Host,
    pub epoch: u64,
}
impl Agents {
    pub async fn ensure_node(&self, _o: Order<'_>, _s: super::proto::NodeSpec) -> Result<Endpoint, AgentError> {
        unimplemented!()
    }
    pub async fn stop_node(&self, _o: Order<'_>, _n: &NodeId) -> Result<(), AgentError> {
        unimplemented!()
    }
    pub async fn remove_node(&self, _o: Order<'_>, _n: &NodeId) -> Result<(), AgentError> {
        unimplemented!()
    }
}
