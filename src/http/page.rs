//! Pages: of our lists, and of lnd's own, which are lnd's JSON with `next_cursor` beside it.

use super::params::params;
use super::values::{Cursor, Limit};
use serde::Serialize;

params! {
    /// Which page of a list of ours.
    pub struct PageParams {
        /// How many at most.
        limit: Option<Limit>,
        /// `next_cursor` of the page before.
        cursor: Option<Cursor>,
    }
}

impl PageParams {
    /// How many at most, and the id after which the page begins.
    pub(super) fn limit_and_after(self) -> (usize, Option<String>) {
        (usize::from(Limit::or_default(self.limit)), self.cursor.map(|cursor| cursor.0))
    }
}

/// A page.
#[derive(Debug, Serialize)]
pub(super) struct LndPage<T> {
    /// As lnd gave it.
    #[serde(flatten)]
    pub page: T,
    /// Where the next one begins; null where this was the last.
    pub next_cursor: Option<String>,
}

/// The cursor after a page of `count` items that ended at lnd's index `last`.
pub(super) fn next_index(count: usize, limit: u64, last: u64) -> Option<String> {
    (count as u64 >= limit).then(|| last.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lnd::proto::lnrpc;

    #[test]
    fn a_page_is_lnds_json_and_one_name_more() {
        let page = lnrpc::ListInvoiceResponse { last_index_offset: 7, ..Default::default() };
        let mut expected = serde_json::to_value(&page).expect("JSON");
        expected["next_cursor"] = "7".into();
        let page = LndPage { page, next_cursor: next_index(100, 100, 7) };
        assert_eq!(serde_json::to_value(&page).expect("JSON"), expected);
        assert_eq!(next_index(99, 100, 7), None);
    }
}
