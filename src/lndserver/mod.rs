//! PLACEHOLDER until the `agent` helper lands the real src/lndserver (take yours; keep these signatures: src/app uses them).
pub mod client;
pub mod proto;
