//! What stands in the place of the deployment's document while its Store is being copied, and for ever in the one that it was
//! copied from: no master starts there.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A Store that is not, or no longer, to be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "moving", deny_unknown_fields)]
pub(super) enum Moving {
    /// Here not everything has arrived yet.
    Copying,
    /// All of it is elsewhere now.
    Moved {
        /// Where.
        to: String,
        /// The document as it was.
        document: Value,
    },
}

impl Moving {
    /// Reads it; `None` for every other document.
    pub(super) fn read(body: &Value) -> Option<Self> {
        serde_json::from_value(body.clone()).ok()
    }

    /// The body of the document.
    pub(super) fn body(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}
