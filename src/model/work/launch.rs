//! `launch`: a machine for a host, by EC2. An operation of the deployment's own, one for each host.

use crate::model::machine::{Frozen, InstanceId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A launch under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The step.
    pub step: LaunchStep,
}

/// The steps. There is a machine from [`LaunchStep::Run`] on, perhaps; a wallet never before the last of them is done, since
/// a host has no slots for lnds until it has joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum LaunchStep {
    /// Nothing is started, or being started: decide what to ask for, and write that down.
    Freeze {
        /// Which of the configured places to ask for, from 0.
        place_number: usize,
        /// Not before then.
        #[serde(with = "time::serde::rfc3339::option")]
        not_before: Option<OffsetDateTime>,
        /// How many machines, one after the other, have ended before they had joined.
        #[serde(default)]
        ended_before: u32,
    },
    /// Ask for the machine, again and again, with the same parameters, until the answer is definite.
    Run {
        /// What is asked for.
        frozen: Frozen,
    },
    /// Nobody knows whether there is a machine, and it is too late to ask for it again: look for it.
    Find {
        /// What was asked for.
        frozen: Frozen,
        /// It was not asked for after this.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
    /// It was started: wait until its agent joins.
    AwaitJoin {
        /// What was asked for.
        frozen: Frozen,
        /// What came of it.
        instance: InstanceId,
    },
    /// It will not join any more, and holds nothing: terminate it.
    Retire {
        /// What was asked for.
        frozen: Frozen,
        /// What came of it.
        instance: InstanceId,
    },
}

impl LaunchStep {
    /// The names of all.
    pub const NAMES: [&'static str; 5] = ["freeze", "run", "find", "await_join", "retire"];

    /// The first.
    #[must_use]
    pub fn first() -> Self {
        Self::Freeze { place_number: 0, not_before: None, ended_before: 0 }
    }

    /// The name in the API.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Freeze { .. } => "freeze",
            Self::Run { .. } => "run",
            Self::Find { .. } => "find",
            Self::AwaitJoin { .. } => "await_join",
            Self::Retire { .. } => "retire",
        }
    }

    fn frozen(&self) -> Option<&Frozen> {
        match self {
            Self::Freeze { .. } => None,
            Self::Run { frozen }
            | Self::Find { frozen, .. }
            | Self::AwaitJoin { frozen, .. }
            | Self::Retire { frozen, .. } => Some(frozen),
        }
    }

    fn instance(&self) -> Option<&InstanceId> {
        match self {
            Self::AwaitJoin { instance, .. } | Self::Retire { instance, .. } => Some(instance),
            Self::Freeze { .. } | Self::Run { .. } | Self::Find { .. } => None,
        }
    }

    /// What was frozen stays, and so does the instance; only one that is terminated, or was definitely never started, is
    /// followed by another.
    pub(super) fn may_become(&self, next: &Self) -> bool {
        let order = matches!(
            (self, next),
            (Self::Freeze { .. }, Self::Freeze { .. } | Self::Run { .. })
                | (Self::Run { .. }, Self::Freeze { .. } | Self::Find { .. } | Self::AwaitJoin { .. })
                | (Self::Find { .. }, Self::Freeze { .. } | Self::AwaitJoin { .. })
                | (Self::AwaitJoin { .. }, Self::Retire { .. })
                | (Self::Retire { .. }, Self::Freeze { .. })
        );
        let same_frozen = match (self.frozen(), next.frozen()) {
            (Some(now), Some(next)) => now == next,
            _ => true,
        };
        let same_instance = match (self.instance(), next.instance()) {
            (Some(now), Some(next)) => now == next,
            _ => true,
        };
        order && same_frozen && same_instance
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::HostId;
    use crate::model::machine::{Place, Template};
    use std::collections::BTreeMap;

    pub(in crate::model::work) fn frozen(generation: u64) -> Frozen {
        Frozen {
            host: HostId::parse(&format!("h{:024}", 7)).unwrap(),
            generation,
            template: Template { id: "lt-1".to_owned(), version: 1 },
            place_number: 0,
            place: Place { subnet: "subnet-1".to_owned(), instance_type: "t4g.small".to_owned() },
            client_token: generation.to_string(),
            tags: BTreeMap::new(),
            user_data: String::new(),
            without_device: None,
            ended_before: 0,
            authority: String::new(),
            join_until: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_machine_is_followed_by_another_only_when_it_is_gone() {
        let instance = |id: &str| InstanceId(id.to_owned());
        let run = |generation| LaunchStep::Run { frozen: frozen(generation) };
        let joins = |generation, id| LaunchStep::AwaitJoin { frozen: frozen(generation), instance: instance(id) };
        let retire = |generation, id| LaunchStep::Retire { frozen: frozen(generation), instance: instance(id) };
        let may = [
            (LaunchStep::first(), run(1)),
            (run(1), joins(1, "a")),
            (run(1), LaunchStep::first()),
            (joins(1, "a"), retire(1, "a")),
            (retire(1, "a"), LaunchStep::first()),
        ];
        for (now, next) in may {
            assert!(now.may_become(&next), "{} to {}", now.name(), next.name());
        }
        let may_not = [
            (run(1), run(2)),
            (run(1), joins(2, "a")),
            (joins(1, "a"), LaunchStep::first()),
            (joins(1, "a"), run(1)),
            (joins(1, "a"), retire(1, "b")),
            (retire(1, "a"), joins(1, "a")),
            (LaunchStep::first(), joins(1, "a")),
        ];
        for (now, next) in may_not {
            assert!(!now.may_become(&next), "{} to {}", now.name(), next.name());
        }
    }
}
