//! PLACEHOLDER until the `agent` helper lands the real src/lndserver (take yours; keep these signatures: src/app uses them).
#[derive(Debug, Clone, Default)]
pub struct NodeSpec {
    pub node_id: String,
    pub slot: u32,
}
