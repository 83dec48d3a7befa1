//! Mines when transactions wait, and keeps every block.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bitcoin::Txid;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use super::{blocks::KeptBlocks, chain_rpc::ChainRpc, error::DevError};

/// How often btcd is asked for waiting transactions and new blocks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// When to mine.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Blocks mined for a transaction, its own included: lnd wants up to 6 for a big channel, 3 for a close.
    pub confirmations: u32,
    /// The least time between blocks. A payment under way survives about three, so it should not see more.
    pub pause: Duration,
    /// A block is mined this long after the last one even if nothing waits: an lnd that starts on a tip older than 2 h
    /// never becomes active.
    pub heartbeat: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { confirmations: 6, pause: Duration::from_millis(500), heartbeat: Duration::from_secs(600) }
    }
}

/// What decides about the next block; knows no chain and no clock.
#[derive(Debug)]
struct Decision {
    policy: Policy,
    last_block: Instant,
    /// Blocks still to be mined on top of the last transaction.
    owed: u32,
    /// What was in the mempool before the last block and still is: btcd will not mine it, so it is no reason to.
    passed_over: HashSet<Txid>,
}

impl Decision {
    fn new(policy: Policy, now: Instant) -> Self {
        Self { policy, last_block: now, owed: 0, passed_over: HashSet::new() }
    }

    fn wants_block(&self, now: Instant, waiting: &[Txid]) -> bool {
        let since = now.saturating_duration_since(self.last_block);
        let reason = self.owed > 0 || waiting.iter().any(|txid| !self.passed_over.contains(txid));
        since >= if reason { self.policy.pause } else { self.policy.heartbeat }
    }

    /// After a block: what waited before it, and what waits still. Returns how many transactions it took.
    fn mined(&mut self, now: Instant, before: &[Txid], after: &[Txid]) -> usize {
        self.last_block = now;
        let left: HashSet<Txid> = after.iter().copied().collect();
        let taken = before.iter().filter(|txid| !left.contains(*txid)).count();
        self.owed = match taken {
            0 => self.owed.saturating_sub(1),
            _ => self.policy.confirmations.saturating_sub(1),
        };
        self.passed_over = before.iter().copied().filter(|txid| left.contains(txid)).collect();
        taken
    }
}

/// A block that the miner made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mined {
    pub height: u32,
    /// Transactions in it, the coinbase apart.
    pub transactions: usize,
}

/// The running miner; it ends when this is dropped.
#[derive(Debug)]
pub struct Miner {
    task: JoinHandle<()>,
    paused: watch::Sender<bool>,
}

impl Miner {
    /// Begins to mine and to keep blocks. `mined` hears of each block that the miner makes.
    pub fn start(rpc: ChainRpc, kept: KeptBlocks, policy: Policy, mined: mpsc::UnboundedSender<Mined>) -> Self {
        let (paused, is_paused) = watch::channel(false);
        let task = tokio::spawn(work(rpc, kept, policy, mined, is_paused));
        Self { task, paused }
    }

    /// Stops or resumes mining. Blocks that others mine are kept all the same.
    pub fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }
}

impl Drop for Miner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn work(
    rpc: ChainRpc,
    mut kept: KeptBlocks,
    policy: Policy,
    mined: mpsc::UnboundedSender<Mined>,
    paused: watch::Receiver<bool>,
) {
    let mut decision = Decision::new(policy, Instant::now());
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let may_mine = !*paused.borrow();
        match look(&rpc, &mut kept, &mut decision, may_mine).await {
            Ok(block) => {
                failing = false;
                if let Some(block) = block {
                    // Nobody has to listen.
                    let _ = mined.send(block);
                }
            }
            // btcd may be restarting; said once, not four times a second.
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(error = &error as &dyn std::error::Error, "the miner cannot reach btcd");
            }
            Err(_) => {}
        }
    }
}

async fn look(
    rpc: &ChainRpc,
    kept: &mut KeptBlocks,
    decision: &mut Decision,
    may_mine: bool,
) -> Result<Option<Mined>, DevError> {
    let before = rpc.mempool().await?;
    let block = if may_mine && decision.wants_block(Instant::now(), &before) {
        rpc.generate(1).await?;
        let transactions = decision.mined(Instant::now(), &before, &rpc.mempool().await?);
        Some(Mined { height: rpc.block_count().await?, transactions })
    } else {
        None
    };
    kept.keep_new(rpc).await?;
    Ok(block)
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    fn txid(n: u8) -> Txid {
        Txid::from_byte_array([n; 32])
    }

    /// Mines as decided for `blocks` pauses, and tells at which of them there was a block.
    fn blocks_over(decision: &mut Decision, now: &mut Instant, pauses: usize) -> Vec<bool> {
        let step = |_| {
            *now += PAUSE;
            let wanted = decision.wants_block(*now, &[]);
            if wanted {
                decision.mined(*now, &[], &[]);
            }
            wanted
        };
        (0..pauses).map(step).collect()
    }

    #[test]
    fn a_transaction_gets_its_confirmations_and_then_there_is_quiet() {
        let mut now = Instant::now();
        let mut decision = Decision::new(Policy { confirmations: 3, ..Policy::default() }, now);
        assert!(!decision.wants_block(now + PAUSE, &[]));
        assert!(!decision.wants_block(now + PAUSE / 2, &[txid(1)]), "not before the pause is over");
        now += PAUSE;
        assert!(decision.wants_block(now, &[txid(1)]));
        assert_eq!(decision.mined(now, &[txid(1)], &[txid(2)]), 1);
        assert!(decision.wants_block(now + PAUSE, &[txid(2)]), "came while the block was made");
        decision.mined(now, &[txid(2)], &[]);
        assert_eq!(blocks_over(&mut decision, &mut now, 4), [true, true, false, false]);
        assert!(decision.wants_block(now + Duration::from_secs(600), &[]));
    }

    #[test]
    fn what_btcd_does_not_mine_is_no_reason_to_mine_for_ever() {
        let mut now = Instant::now();
        let mut decision = Decision::new(Policy::default(), now);
        now += PAUSE;
        assert_eq!(decision.mined(now, &[txid(1)], &[txid(1)]), 0);
        assert!(!decision.wants_block(now + PAUSE, &[txid(1)]));
        assert!(decision.wants_block(now + PAUSE, &[txid(1), txid(2)]));
    }
}
