//! Follows the state of an lnd's wallet.

use crate::backoff::Backoff;
use crate::lnd::LndClient;
use crate::lnd::proto::lnrpc;
use crate::model::node::WalletState;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// lnd listens about 0.1 s after its start.
const RETRY: Backoff = Backoff { first: Duration::from_millis(20), longest: Duration::from_secs(1) };

/// So many failures in a row (about 20 s) are more than a start.
const WORTH_TELLING: u32 = 30;

/// A subscription to one lnd. Ends when dropped.
#[derive(Debug)]
pub(super) struct WalletWatch {
    states: mpsc::Receiver<WalletState>,
    _task: AbortOnDropHandle<()>,
}

impl WalletWatch {
    /// Follows the lnd behind `client`; without one nothing is ever known.
    pub(super) fn new(client: Option<LndClient>) -> Self {
        let (sender, states) = mpsc::channel(16);
        let task = async move {
            match client {
                Some(client) => follow(&client, &sender).await,
                None => sender.closed().await,
            }
        };
        Self { states, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// The next state.
    pub(super) async fn next(&mut self) -> WalletState {
        match self.states.recv().await {
            Some(state) => state,
            None => std::future::pending().await,
        }
    }
}

/// Subscribes again and again; the task is ended when the process has exited.
async fn follow(client: &LndClient, to: &mpsc::Sender<WalletState>) {
    let mut failures = 0;
    loop {
        let mut states = client.wallet_states();
        loop {
            match states.next().await {
                Ok(Some(update)) => {
                    failures = 0;
                    if to.send(known(update.state)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    if failures == WORTH_TELLING {
                        tracing::warn!(%error, "an lnd runs and does not tell its state");
                    }
                    break;
                }
            }
        }
        tokio::time::sleep(RETRY.pause(failures, rand::random())).await;
        failures = failures.saturating_add(1);
    }
}

fn known(state: i32) -> WalletState {
    match lnrpc::WalletState::try_from(state) {
        Ok(lnrpc::WalletState::NonExisting) => WalletState::NonExisting,
        Ok(lnrpc::WalletState::Locked) => WalletState::Locked,
        Ok(lnrpc::WalletState::Unlocked) => WalletState::Unlocked,
        Ok(lnrpc::WalletState::RpcActive) => WalletState::RpcActive,
        Ok(lnrpc::WalletState::ServerActive) => WalletState::ServerActive,
        Ok(lnrpc::WalletState::WaitingToStart) => WalletState::WaitingToStart,
        Err(_) => WalletState::Unknown,
    }
}
