use super::*;
use crate::app::lease::Lease;
use crate::clock::SystemClock;
use crate::deployment::tests::{files, section, store};
use crate::deployment::{KeySource, Rotation, open};
use crate::model::Network;
use crate::model::host::Enrolment;
use crate::model::node::Authorities as Told;
use crate::pki;
use crate::store::sqlite::SqliteStore;
use std::net::Ipv4Addr;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

struct World {
    store: Arc<SqliteStore>,
    keys: Keys,
    fleet: Fleet,
    _folder: tempfile::TempDir,
}

async fn keys(store: &SqliteStore, source: &KeySource) -> Keys {
    let opening = open(store, source, &section("ours", Network::Simnet), OffsetDateTime::UNIX_EPOCH).await.unwrap();
    Keys::new(Arc::new(opening.sealer), "ours".to_owned(), Network::Simnet)
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

impl World {
    async fn new() -> Self {
        let (_folder, store) = store().await;
        let store = Arc::new(store);
        let keys = keys(&store, &files(&[(1, 7)])).await;
        let fleet = Fleet::open(store.clone(), clock(), &keys, time::Duration::DAY).await.unwrap();
        Self { store, keys, fleet, _folder }
    }

    async fn roll(&self) -> Result<Rolled, RollError> {
        self.roll_by(&self.keys).await
    }

    async fn roll_by(&self, keys: &Keys) -> Result<Rolled, RollError> {
        let rolling = Rolling { store: self.store.clone(), keys, clock: clock(), patience: Duration::ZERO };
        rolling.run(|_| {}).await
    }

    async fn held_up(&self) -> Waiting {
        match self.roll().await {
            Err(RollError::HeldUp(waiting)) => waiting,
            other => panic!("{other:?}"),
        }
    }

    async fn authority(&self) -> Authority {
        repo::get::<Authority>(&*self.store, Authority::ID).await.unwrap().unwrap().value
    }

    async fn change(&self, host: &HostId, change: impl Fn(&mut Host) + Send + Sync) {
        let changed = repo::modify::<Host, StoreError>(&*self.store, host.as_str(), |host| {
            change(host);
            Ok(true)
        });
        changed.await.unwrap();
    }
}

#[tokio::test]
async fn where_nobody_is_it_is_changed_at_once_and_keeps_its_identity() {
    let world = World::new().await;
    let first = world.fleet.ca().fingerprint();
    let rolled = world.roll().await.unwrap();
    assert!(rolled.authority != first && !rolled.was_begun);
    let authority = world.authority().await;
    assert_eq!((authority.believed().len(), &authority.roll, authority.step), (1, &None, 4));
    assert!(world.fleet.refresh(&world.keys).await.unwrap());
    assert!(!world.fleet.refresh(&world.keys).await.unwrap(), "it is known by now");
    assert_eq!((world.fleet.ca().fingerprint(), world.fleet.identity()), (rolled.authority, first.to_string()));
    let again = world.roll().await.unwrap();
    assert!(again.authority != rolled.authority);
    world.fleet.refresh(&world.keys).await.unwrap();
    assert_eq!(world.fleet.identity(), first.to_string());
}

#[tokio::test]
async fn a_master_that_does_not_follow_holds_it_up_at_every_step() {
    let world = World::new().await;
    let lease = Lease::new(MasterId::random(&mut rand::rng()), Duration::from_secs(60), clock());
    let stop = CancellationToken::new();
    let beating = tokio::spawn(Arc::clone(&lease).run(world.store.clone() as Arc<dyn Store>, stop.clone()));
    let told = async |told: Option<Told>| {
        while repo::list_all::<Heartbeat>(&*world.store, None).await.unwrap().first().map(|h| &h.value.authorities)
            != Some(&told)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    told(None).await;
    assert_eq!(world.held_up().await.masters, [lease.master().clone()], "an older program");
    // One step after the other, each with a certificate of the one that issues, or it counts for nothing.
    let mut issued = HashSet::new();
    for step in 1..=3 {
        let authority = world.authority().await;
        assert_eq!(authority.step, step);
        let shown = CaCert::from_pem(&authority.certificate_pem).unwrap().fingerprint().to_string();
        issued.insert(shown.clone());
        for (told_step, by) in [(step - 1, &shown), (step, &"00".repeat(32))] {
            let lagging = Told { step: told_step, shown: by.clone() };
            lease.tell_authorities(lagging.clone());
            told(Some(lagging)).await;
            assert_eq!(world.held_up().await.masters.len(), 1, "{step}");
        }
        let follows = Told { step, shown };
        lease.tell_authorities(follows.clone());
        told(Some(follows)).await;
        match step {
            3 => assert!(world.roll().await.unwrap().was_begun),
            _ => assert_eq!(world.held_up().await.masters.len(), 1, "the next step"),
        }
    }
    assert_eq!(issued.len(), 2);
    stop.cancel();
    beating.await.unwrap();
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_holds_it_up_until_it_is_revoked() {
    let world = World::new().await;
    let (host, token) = world.fleet.invite_host(1).await.unwrap();
    assert_eq!(world.held_up().await, Waiting { invited: vec![host.clone()], ..Waiting::default() });
    let (_, csr) = pki::make_csr().unwrap();
    // Nobody listens there.
    world.fleet.enrol(token.expose(), &csr, (Ipv4Addr::LOCALHOST.into(), 9)).await.unwrap();
    let waiting = world.held_up().await;
    assert_eq!((waiting.hosts.len(), waiting.invited.len()), (1, 0));
    assert!(waiting.to_string().contains(&format!("{host} (the host's agent cannot be reached)")), "{waiting}");

    // What has expired, or is gone, could not come back with what it has.
    for change in [
        (|host: &mut Host| {
            if let Enrolment::Enrolled { expires_at, .. } = &mut host.enrolment {
                *expires_at = OffsetDateTime::UNIX_EPOCH;
            }
        }) as fn(&mut Host),
        |host| host.enrolment = Enrolment::Revoked,
    ] {
        let before = repo::get::<Host>(&*world.store, host.as_str()).await.unwrap().unwrap().value;
        world.change(&host, change).await;
        let rolled = world.roll().await.unwrap();
        assert!(rolled.authority != world.fleet.ca().fingerprint());
        world.change(&host, |host| *host = before.clone()).await;
    }
}

#[tokio::test]
async fn an_invitation_names_both_and_one_by_the_formers_key_is_waited_for() {
    let world = World::new().await;
    let (old, _) = world.fleet.invite_host(1).await.unwrap();
    assert_eq!(world.held_up().await.invited, std::slice::from_ref(&old));
    assert_eq!(world.authority().await.step, 1, "announced");
    world.fleet.refresh(&world.keys).await.unwrap();
    assert_eq!(world.fleet.pins().unwrap().all().len(), 2);
    let launching = world.fleet.launching().unwrap();
    let (new, _) = world.fleet.invite_host(1).await.unwrap();
    world.change(&new, |host| host.compute = Some(Default::default())).await;
    world.fleet.revoke_host(&old).await.unwrap();
    // It may come, and find its master; but its token would be made of the former's key if EC2 were asked again.
    assert_eq!(world.held_up().await.invited, std::slice::from_ref(&new));
    assert_eq!(world.authority().await.step, 2, "the new one issues");
    world.fleet.refresh(&world.keys).await.unwrap();
    let token = |key: &crate::app::fleet::JoinKey| {
        format!("{:?}", key.invitation(&new, 1, OffsetDateTime::UNIX_EPOCH, &launching.pins).unwrap())
    };
    let again = world.fleet.join_key(&launching.authority).unwrap().unwrap();
    assert_eq!(token(&again), token(&launching.join_key), "the same request");
    assert_eq!(token(&world.fleet.join_key("").unwrap().unwrap()), token(&launching.join_key), "an older program's");
    assert_ne!(token(&world.fleet.launching().unwrap().join_key), token(&launching.join_key));
    world.fleet.revoke_host(&new).await.unwrap();
    assert!(world.roll().await.unwrap().was_begun);
    world.fleet.refresh(&world.keys).await.unwrap();
    assert!(world.fleet.join_key(&launching.authority).unwrap().is_none(), "the former's key is gone");
}

#[tokio::test]
async fn the_sealing_key_may_change_in_the_middle_of_it() {
    let world = World::new().await;
    let (host, _) = world.fleet.invite_host(1).await.unwrap();
    world.held_up().await;
    let both = files(&[(1, 7), (2, 9)]);
    let rotation = Rotation { store: &*world.store, source: &both, patience: Duration::ZERO };
    let rotated = rotation.run(OffsetDateTime::UNIX_EPOCH, |_| {}).await.unwrap();
    assert_eq!(rotated.secrets, 2, "the keys of both authorities");
    world.fleet.revoke_host(&host).await.unwrap();
    let newer = keys(&world.store, &files(&[(2, 9)])).await;
    assert!(world.roll_by(&newer).await.unwrap().was_begun);
    // Whoever has not heard of the sealing key seals no authority under the older one.
    let refused = world.roll().await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(world.authority().await.roll, None);
}

/// While the sealing key is changed: the present authority's key still opens, but what is sealed now under the older one nobody
/// would seal again.
#[tokio::test]
async fn no_authority_is_sealed_under_a_key_that_seals_no_more() {
    let world = World::new().await;
    let before = world.authority().await;
    let seals = repo::modify::<Deployment, StoreError>(&*world.store, Deployment::ID, |deployment| {
        deployment.sealing = Some(2);
        Ok(true)
    });
    seals.await.unwrap();
    let refused = world.roll().await;
    assert!(matches!(refused, Err(RollError::SealingKey)), "{refused:?}");
    assert_eq!(world.authority().await, before);
}

#[tokio::test]
async fn two_at_the_same_time_do_it_together() {
    let world = World::new().await;
    let (one, two) = tokio::join!(world.roll(), world.roll());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.authority, world.authority().await.step), (two.authority, 4));
}
