//! Ports for the processes of tests, out of the range that outgoing connections use, each given once in a run: one that is
//! given is often not listened on before something else has started, or was killed and is started again.

use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

const FIRST: u32 = 20_000;
const COUNT: u32 = 12_700;

/// How many were given or passed over.
static GONE: Mutex<u32> = Mutex::new(0);

/// The first of `count` ports in a row that nobody listens on.
pub fn free(count: u16) -> u16 {
    let count = u32::from(count);
    // Different runs on one machine begin at different places.
    let offset = std::process::id() % 97 * 100;
    let mut gone = GONE.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let first = (offset + *gone) % COUNT;
        let beyond_the_end = first + count > COUNT;
        *gone += if beyond_the_end { COUNT - first } else { count };
        assert!(*gone <= COUNT, "the run needs more ports than it has");
        let nth = |n: u32| u16::try_from(FIRST + first + n).unwrap();
        if !beyond_the_end && (0..count).all(|n| TcpListener::bind(("127.0.0.1", nth(n))).is_ok()) {
            return nth(0);
        }
    }
}
