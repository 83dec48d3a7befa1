//! What every Store must do, whatever it is made of. A store is held to it by a [`Data`] and one line:
//! `contract!(fresh)`, where `fresh` is an async function that returns new, empty data of that store.

mod commits;
mod documents;
mod feed;
mod firestore;
mod limits;
mod listing;
mod racing;
mod sqlite;
mod tools;

use async_trait::async_trait;
use scale_lnd::store::Store;
use std::sync::Arc;

/// Data of its own for one test; gone when dropped.
#[async_trait]
pub trait Data: Send + Sync {
    /// Opens a handle on the data. Every call gives another one that shares nothing with the others but the data, as if
    /// it were another process's.
    async fn handle(&self) -> Arc<dyn Store>;

    /// Other data of the same kind, new and empty.
    async fn another(&self) -> Box<dyn Data>;

    /// The numbers `n` of all things, as of one instant, now. A listing is, unless that of a stand-in is known to be worse.
    async fn numbers_now(&self, store: &dyn Store) -> Vec<u64> {
        tools::numbers(store).await
    }
}

/// Makes a test of every case of the contract. Each has a minute.
macro_rules! contract {
    ($fresh:path) => {
        crate::store_contract::contract! { $fresh:
            documents {
                what_is_not_there_is_absent
                a_document_is_read_as_it_was_written
                a_create_needs_absence
                an_update_needs_the_version
                a_delete_needs_the_version
                every_write_makes_a_new_version
                a_version_is_never_used_again
                a_big_document_is_kept
                ids_may_be_long_but_not_strange
                collections_are_apart
            }
            commits {
                all_or_nothing
                a_conflict_names_the_first_that_failed
                a_check_guards_and_writes_nothing
                a_document_may_occur_once
                versions_come_in_the_order_of_the_writes
                a_large_commit_is_one
                nobody_sees_half_a_commit
                another_handle_reads_what_was_committed
            }
            listing {
                pages_upwards
                pages_downwards
                an_index_selects
                an_index_compares_exactly
                a_write_replaces_the_index
                a_delete_takes_its_index_along
                paging_is_steady_while_others_write
            }
            racing {
                no_increment_is_lost
                one_create_wins
                strangers_do_not_conflict
                transfers_keep_the_sum
                checks_exclude_each_other
                a_failure_stays_alone
            }
            feed {
                without_a_cursor_it_begins_with_a_resync
                it_tells_what_was_written_and_deleted
                it_tells_what_another_handle_writes
                nothing_is_missed_between_following_and_writing
                every_follower_hears_everything_in_order
                a_cursor_goes_on_where_it_was
                a_cursor_goes_on_at_another_handle
                a_cursor_of_other_data_is_a_resync
                a_failed_commit_is_not_told
                it_ends_with_the_store
            }
        }
    };
    ($fresh:path: $($group:ident { $($case:ident)+ })+) => {
        $(mod $group {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $case() {
                let case = async {
                    let data = $fresh().await;
                    crate::store_contract::$group::$case(&data).await;
                };
                tokio::time::timeout(std::time::Duration::from_secs(60), case).await.expect("over its deadline");
            })+
        })+
    };
}
use contract;
