use super::*;
use crate::model::machine::{Disk, VolumeId};
use crate::model::work::launch;

fn id(name: &str) -> InstanceId {
    InstanceId(name.to_owned())
}

fn data_volume() -> DataVolume {
    DataVolume { id: VolumeId("vol-1".to_owned()), device: "/dev/sdf".to_owned() }
}

fn frozen(generation: u64) -> Frozen {
    Frozen { without_device: Some("/dev/sdf".to_owned()), ..launch::tests::frozen(generation) }
}

#[test]
fn nothing_is_started_before_the_old_one_is_proven_to_be_over() {
    let other = DataVolume { device: "/dev/sdg".to_owned(), ..data_volume() };
    let freeze = RecoverStep::Replace { volume: data_volume(), launch: LaunchStep::first() };
    let run =
        |generation, volume| RecoverStep::Replace { volume, launch: LaunchStep::Run { frozen: frozen(generation) } };
    let attach =
        |generation, name, volume| RecoverStep::Attach { volume, frozen: frozen(generation), instance: id(name) };
    let joins = |generation, name| RecoverStep::AwaitJoin { frozen: frozen(generation), instance: id(name) };
    let lnds = |name| RecoverStep::AwaitLnds { instance: id(name), operations: Vec::new() };
    let end = RecoverStep::End { instance: id("old") };
    let may = [
        (RecoverStep::first(), end.clone()),
        (end.clone(), RecoverStep::first()),
        (RecoverStep::first(), freeze.clone()),
        (freeze.clone(), run(2, data_volume())),
        (run(2, data_volume()), freeze.clone()),
        (run(2, data_volume()), attach(2, "new", data_volume())),
        (attach(2, "new", data_volume()), joins(2, "new")),
        (attach(2, "new", data_volume()), RecoverStep::first()),
        (joins(2, "new"), RecoverStep::first()),
        (joins(2, "new"), lnds("new")),
    ];
    for (now, next) in may {
        assert!(now.may_become(&next), "{} to {}", now.name(), next.name());
    }
    let may_not = [
        (end.clone(), freeze.clone()),
        (RecoverStep::first(), run(2, data_volume())),
        (RecoverStep::first(), attach(2, "new", data_volume())),
        (freeze, run(2, other.clone())),
        (run(2, data_volume()), run(3, data_volume())),
        (run(2, data_volume()), attach(3, "new", data_volume())),
        (run(2, data_volume()), attach(2, "new", other)),
        (run(2, data_volume()), joins(2, "new")),
        (attach(2, "new", data_volume()), joins(2, "another")),
        (attach(2, "new", data_volume()), run(2, data_volume())),
        (joins(2, "new"), lnds("another")),
        (lnds("new"), RecoverStep::first()),
    ];
    for (now, next) in may_not {
        assert!(!now.may_become(&next), "{} to {}", now.name(), next.name());
    }
}

/// The old machine, in this state.
fn old(state: MachineState, is_over: bool, stays: bool) -> Instance {
    Instance {
        id: id("old"),
        state,
        is_over,
        ended_because: None,
        place: None,
        disks: vec![Disk { volume: data_volume(), stays }],
        address: None,
        host: None,
        generation: None,
        client_token: None,
    }
}

#[test]
fn only_an_end_and_a_free_volume_are_a_proof() {
    let on = |name: &str| VolumeState::On { instance: id(name), is_attached: true };
    let judged = |seen: Option<&Instance>, state: Option<VolumeState>, terminate| {
        let volume = state.map(|state| Volume { id: data_volume().id, state });
        judge(&id("old"), seen, &data_volume(), volume.as_ref(), terminate)
    };
    let over = old(MachineState::Terminated, true, true);
    for terminate in [false, true] {
        assert_eq!(judged(Some(&over), Some(VolumeState::Free), terminate), Verdict::Proven);
        assert_eq!(judged(None, Some(VolumeState::Free), terminate), Verdict::Proven, "forgotten by EC2");
        for seen in [Some(&over), None] {
            assert!(matches!(judged(seen, Some(on("old")), terminate), Verdict::Wait(_)));
            assert!(matches!(judged(seen, Some(on("other")), terminate), Verdict::Park(why) if why.contains("other")));
            assert!(matches!(judged(seen, None, terminate), Verdict::Park(why) if why.contains("does not exist")));
        }
        let ending = old(MachineState::Terminated, false, true);
        for state in [VolumeState::Free, on("old")] {
            assert!(
                matches!(judged(Some(&ending), Some(state), terminate), Verdict::Wait(_)),
                "its lnds may still run"
            );
        }
    }
    for state in [MachineState::Pending, MachineState::Running, MachineState::Stopped] {
        let lives = old(state, false, true);
        // Also where the volume was taken from it: what its lnds hold in memory they may still use.
        for volume in [VolumeState::Free, on("old")] {
            assert!(matches!(judged(Some(&lives), Some(volume.clone()), false), Verdict::Refuse(_)), "{state:?}");
            assert_eq!(judged(Some(&lives), Some(volume), true), Verdict::Terminate, "{state:?}");
        }
        let takes_it_along = old(state, false, false);
        let refused = judged(Some(&takes_it_along), Some(on("old")), true);
        assert!(matches!(refused, Verdict::Refuse(why) if why.contains("DeleteOnTermination")), "{state:?}");
    }
}
