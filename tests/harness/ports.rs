//! Ports for the processes of tests, out of the range that outgoing connections use, each given once in a run.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

static NEXT: AtomicU16 = AtomicU16::new(0);
const FIRST: u16 = 20_000;
const LAST: u16 = 31_000;

/// The first of `count` ports in a row that nobody listens on.
pub fn free(count: u16) -> u16 {
    // Different runs on one machine begin at different places.
    let offset = (std::process::id() % 97) as u16 * 100;
    loop {
        let first = FIRST + (offset + NEXT.fetch_add(count, Ordering::Relaxed)) % (LAST - FIRST - count);
        let all_free = (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        if all_free {
            return first;
        }
    }
}
