use super::*;
use crate::model::ids::HostId;
use time::OffsetDateTime;

fn state(phase: Phase, runtime: Option<(Process, WalletState)>) -> NodeState {
    let node = Node { phase, wallet_may_exist: true, ..crate::app::testing::node() };
    let id = node.id.clone();
    let mut rng = rand::rng();
    let at = OffsetDateTime::UNIX_EPOCH;
    let host = HostId::random(&mut rng);
    let runtime = runtime.map(|(process, wallet)| Runtime {
        node: id,
        host: host.clone(),
        generation: 1,
        sequence: 1,
        process,
        wallet,
        starts: 1,
        at,
    });
    NodeState { node, runtime }
}

#[test]
fn each_reason_has_its_code() {
    use Process::{Restarting, Running, Stopped};
    let restarting = || Restarting { reason: "a line".into() };
    let table = [
        (Phase::Creating, None, Some(Code::NodeCreating)),
        (Phase::Creating, Some((Running, WalletState::ServerActive)), Some(Code::NodeCreating)),
        (Phase::Failed, None, Some(Code::UserNotFound)),
        (Phase::Deleted, Some((Stopped, WalletState::Unknown)), Some(Code::NodeDeleted)),
        (Phase::Ready, None, Some(Code::NodeStarting)),
        (Phase::Ready, Some((Stopped, WalletState::ServerActive)), Some(Code::NodeStopped)),
        (Phase::Ready, Some((restarting(), WalletState::ServerActive)), Some(Code::NodeStarting)),
        (Phase::Ready, Some((Running, WalletState::Locked)), Some(Code::NodeUnlocking)),
        (Phase::Ready, Some((Running, WalletState::Unlocked)), Some(Code::NodeUnlocking)),
        (Phase::Ready, Some((Running, WalletState::RpcActive)), Some(Code::NodeNotSynced)),
        (Phase::Ready, Some((Running, WalletState::Unknown)), Some(Code::NodeStarting)),
        (Phase::Ready, Some((Running, WalletState::NonExisting)), Some(Code::NodeStopped)),
        (Phase::Ready, Some((Running, WalletState::ServerActive)), None),
        (Phase::Deleting, Some((Running, WalletState::ServerActive)), None),
    ];
    for (phase, runtime, expected) in table {
        let told = judge(&state(phase, runtime.clone())).err();
        assert_eq!(told.as_ref().map(|refusal| refusal.code), expected, "{phase:?} {runtime:?}");
        let is_passing = matches!(
            expected,
            Some(
                Code::NodeCreating | Code::NodeStarting | Code::NodeStopped | Code::NodeUnlocking | Code::NodeNotSynced
            )
        );
        assert_eq!(told.and_then(|refusal| refusal.retry_after).is_some(), is_passing, "{phase:?} {runtime:?}");
    }
}

#[test]
fn a_failed_create_and_a_stranger_are_the_same() {
    assert_eq!(judge(&state(Phase::Failed, None)).expect_err("refused"), unknown_user());
}
