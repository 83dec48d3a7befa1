//! `update`: look at a place in the watched repository for a release, and want it, if it is one for this deployment. An
//! operation of the deployment's own.

use crate::model::updates::GitRef;
use serde::{Deserialize, Serialize};

/// A look under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Where.
    pub source: GitRef,
}

impl Update {
    /// The name of its only step in the API: to look twice is to look.
    pub const STEP: &'static str = "fetch";
}
