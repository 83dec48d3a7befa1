//! A server of files: the artifacts of releases, for one. It counts how often each is loaded.

use super::Served;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use http::StatusCode;
use scale_lnd::model::release::Sha256 as Digest;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// By name: what it is, and how often it was loaded.
type ByName = Arc<Mutex<HashMap<String, (Vec<u8>, usize)>>>;

/// A server with files.
#[derive(Debug)]
pub struct Files {
    served: Served,
    files: ByName,
}

impl Files {
    pub async fn start() -> Self {
        let files = ByName::default();
        let answer = |State(files): State<ByName>, Path(name): Path<String>| {
            let mut files = files.lock().unwrap();
            let found = files.get_mut(&name).ok_or(StatusCode::NOT_FOUND).map(|(bytes, count)| {
                *count += 1;
                Body::from(bytes.clone())
            });
            std::future::ready(found)
        };
        let routes = Router::new().route("/{name}", axum::routing::get(answer)).with_state(Arc::clone(&files));
        Self { served: Served::new(routes).await, files }
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of_digest(&Sha256::digest(&bytes));
        self.files.lock().unwrap().insert(name.to_owned(), (bytes, 0));
        digest
    }

    pub fn loaded(&self, name: &str) -> usize {
        self.files.lock().unwrap().get(name).map_or(0, |(_, count)| *count)
    }

    /// Where a file is.
    pub fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.served.url)
    }
}
