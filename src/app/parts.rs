//! Small services that several use: fee rates, and the turn for scrypt.

use super::Parts;
use crate::error::Result;
use crate::lnd::client::LndClient;
use crate::lnd::macaroon::Macaroon;
use crate::lnd::{LndError, LndErrorKind};
use crate::model::HostId;
use crate::model::amount::Sat;
use crate::model::node::Node;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many blocks an on-chain transaction of ours may take to confirm, in lnd's fee estimate.
const CONF_TARGET: i32 = 6;
/// InitWallet and unlock take 256 MiB each (facts: scrypt): at most this many at once on a host.
const SCRYPTS_PER_HOST: usize = 2;

/// Turns for scrypt, by host.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<HostId, Arc<Semaphore>>>);

impl Turns {
    /// Waits for a turn on `host`. `None` only if the program is ending.
    pub async fn take(&self, host: &HostId) -> Option<OwnedSemaphorePermit> {
        let semaphore = {
            let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(host.clone()).or_insert_with(|| Arc::new(Semaphore::new(SCRYPTS_PER_HOST))).clone()
        };
        semaphore.acquire_owned().await.ok()
    }
}

impl Parts {
    /// What a vbyte of an on-chain transaction costs now, satoshi, rounded up.
    pub async fn fee_rate(&self, lnd: &LndClient, read: &Macaroon) -> Result<u64> {
        if let Some(fixed) = self.settings.fixed_sat_per_vbyte {
            return Ok(fixed);
        }
        let estimate = lnd.estimate_fee_rate(read, CONF_TARGET).await.map_err(|error| {
            // An estimator that does not answer now is no reason to give anything up.
            let passing = matches!(error.kind, LndErrorKind::Refused | LndErrorKind::NotFound);
            if passing { LndError::new(LndErrorKind::Unknown, error.message) } else { error }
        })?;
        let sat_per_kw = Sat::from_lnd(estimate.sat_per_kw).0;
        Ok(sat_per_kw.div_ceil(250).max(1))
    }

    /// Waits for this node's turn to do scrypt on its host.
    pub async fn scrypt_turn(&self, node: &Node) -> Option<OwnedSemaphorePermit> {
        let host = &node.placement.as_ref()?.host;
        self.turns.take(host).await
    }
}
