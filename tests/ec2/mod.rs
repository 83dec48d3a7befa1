//! The deployment makes its own hosts, on EC2.

pub mod cloud;
mod policy;
mod recovery;
pub mod stacks;
mod stories;
mod templates;
mod trouble;

pub use cloud::moto;
use cloud::{Cloud, Compute, LIMIT, deployment};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(300);
