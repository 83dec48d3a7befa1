//! The harness of the integration tests: one simnet for the whole run (btcd and a treasury), and on it as many
//! deployments as tests want, each with its own store, masters and host agent, all of them the real program in processes
//! of its own.
//!
//! Everything lives beneath a reaper: a test that panics, hangs past its deadline or is killed leaves nothing behind.

pub mod api;
pub mod asked;
pub mod command;
pub mod deployment;
pub mod emulator;
pub mod events;
pub mod files;
mod itself;
mod pauses;
pub mod ports;
pub mod served;
pub mod world;

use std::future::Future;
use std::io::Write;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::runtime::Runtime;

pub use api::{Answer, Api};
pub use deployment::{Deployment, Setup};
pub use files::Files;
pub use pauses::Pauses;
pub use served::Served;

/// One runtime for all tests: what they share (the reaper's connection) must outlive each of them.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let _provider = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Past the test runner's capture: the runtime's threads inherit that of the test that came first, and what another
    // test's task panicked with would be lost.
    std::panic::set_hook(Box::new(|panic| drop(writeln!(std::io::stderr(), "{panic}"))));
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// Runs a test, which fails at its deadline. It is dropped then, so that what it has started burdens no other test.
pub fn run<F>(deadline: Duration, test: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let outcome = RUNTIME.block_on(async move {
        let mut task = tokio::spawn(test);
        let outcome = tokio::time::timeout(deadline, &mut task).await;
        if outcome.is_err() {
            task.abort();
            // One that holds its thread cannot be dropped, and is not waited for.
            let _dropped = tokio::time::timeout(Duration::from_secs(5), task).await;
        }
        outcome
    });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => panic!("{}", over(deadline)),
    }
}

/// The same for a test that has a runtime of its own.
pub async fn within<T>(deadline: Duration, test: impl Future<Output = T>) -> T {
    tokio::time::timeout(deadline, test).await.unwrap_or_else(|_| panic!("{}", over(deadline)))
}

fn over(deadline: Duration) -> String {
    format!("the test did not end within {deadline:?}")
}

/// Asks again and again until `look` finds something; for what tells no event.
pub async fn eventually<T, F>(what: &str, at_most: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + at_most;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {at_most:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
