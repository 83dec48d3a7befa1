//! What Firestore's refusals mean, in words that an operator can act on.

use crate::error::StoreError;
use firestore::gcloud_sdk::tonic::{Code, Status};

/// A call that was not answered as it should be: Firestore cannot serve now. Messages of Firestore name resources and
/// conditions, never the values of documents.
pub(super) fn unavailable(status: &Status) -> StoreError {
    StoreError::Unavailable(words(status))
}

/// What went wrong and, where it is known, what to do about it.
pub(super) fn words(status: &Status) -> String {
    let advice = match status.code() {
        Code::PermissionDenied => {
            "Firestore refuses these credentials: their service account needs the role roles/datastore.user in the project"
        }
        Code::Unauthenticated => {
            "Firestore does not accept these credentials: is the key revoked, of another project, or this machine's clock \
             wrong?"
        }
        Code::NotFound => "Firestore has no such project or database: compare store.project and store.database",
        Code::ResourceExhausted => "Firestore's quota is used up",
        Code::FailedPrecondition => {
            "Firestore cannot do this with the database as it is set up: it must be in native mode, with the indexes of \
             deploy/firestore"
        }
        Code::DeadlineExceeded | Code::Cancelled => "Firestore did not answer in time",
        Code::Unavailable => "Firestore cannot be reached",
        _ => "Firestore failed",
    };
    match status.message() {
        "" => advice.to_owned(),
        message => format!("{advice} ({message})"),
    }
}

/// Whether reading again at once can help: a connection that broke is made anew.
pub(super) fn may_pass(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Internal | Code::Unknown | Code::Aborted)
}
