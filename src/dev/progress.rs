//! What is told while things start, run and stop: a line each, with the seconds since the command began.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Instant,
};

/// Where progress goes. Copies share the beginning of time.
#[derive(Debug, Clone, Copy)]
pub struct Progress(Instant);

impl Progress {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    pub fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    pub fn say(self, line: impl Display) {
        print(format_args!("[{:6.1} s] {line}\n", self.seconds()));
    }
}

/// Prints as it is. Unlike `print!` it does not panic when nobody reads any more: what runs has to be stopped in order.
pub(super) fn print(text: impl Display) {
    let mut out = io::stdout().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}
