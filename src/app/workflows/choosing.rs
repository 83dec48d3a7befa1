//! Which host takes a new node. `model/placing.rs` says which is the best; whether it is there, its agent is asked. Nobody
//! writes down who was heard when: that would cost each host something all the time.

use super::super::step::Ctx;
use crate::model::host::Host;
use crate::model::ids::NodeId;
use crate::model::placing;
use crate::store::repo::Versioned;
use futures::future::join_all;
use std::collections::HashSet;

/// How many agents are asked at once, where the best host's did not answer.
const ASKED_AT_ONCE: usize = 16;

/// The host that takes the node, and its slot: of those whose agents answer the best; of those that do not, where there is
/// no other. `None`: there is no free slot.
pub(super) async fn choose<'a>(
    ctx: &Ctx,
    id: &NodeId,
    usable: &[&'a Versioned<Host>],
) -> Option<(&'a Versioned<Host>, u16)> {
    let agents = &ctx.parts.agents;
    let (mut silent, mut there) = (agents.silent(), HashSet::new());
    let mut at_once = 1;
    loop {
        let now = ctx.parts.clock.now();
        let (best, slot) = placing::choose(id, usable.to_vec(), &silent, now)?;
        if silent.contains(&best.value.id) || there.contains(&best.value.id) {
            return Some((best, slot));
        }
        let mut asked = vec![best];
        while asked.len() < at_once {
            let others = usable.iter().copied().filter(|host| asked.iter().all(|one| one.value.id != host.value.id));
            match placing::choose(id, others.collect(), &silent, now) {
                Some((next, _)) if !silent.contains(&next.value.id) => asked.push(next),
                _ => break,
            }
        }
        let answers = asked.iter().map(|host| async { (host.value.id.clone(), agents.answers(&host.value).await) });
        for (host, answers) in join_all(answers).await {
            if answers {
                there.insert(host)
            } else {
                silent.insert(host)
            };
        }
        at_once = ASKED_AT_ONCE;
    }
}
