//! The order of the steps, for any that could be proposed: what must never be taken back never is.

use super::*;
use crate::model::amount::{Msat, Sat};
use crate::model::ids::{HostId, NodeId, OperationId};
use crate::model::machine::{DataVolume, Frozen, InstanceId, Place, Template, VolumeId};
use crate::model::node_look::Look;
use crate::model::release::Sha256;
use close::{Close, CloseFee, CloseStep};
use create::{Create, CreateStep};
use delete::{Delete, DeleteStep};
use launch::{Launch, LaunchStep};
use onchain::{FundingBatch, FundingOutput, SendStep, Withdraw, WithdrawAmount};
use pay::{OpenPolicy, Opened, Opening, Pay, PayStep, PayTerms};
use proptest::prelude::*;
use proptest::sample::select;
use recover::{Recover, RecoverStep};
use resume::Resume;
use time::OffsetDateTime;
use upgrade::{Replaced, Upgrade, UpgradeStep};

fn text() -> impl Strategy<Value = String> {
    select(vec!["a".to_owned(), "b".to_owned()])
}

fn sat() -> impl Strategy<Value = Sat> {
    (1u64..3).prop_map(Sat)
}

fn send_step() -> impl Strategy<Value = SendStep> {
    prop_oneof![
        Just(SendStep::Fund),
        (text(), sat()).prop_map(|(psbt, fee_sat)| SendStep::Finalize { psbt, fee_sat }),
        (text(), sat()).prop_map(|(raw_tx, fee_sat)| SendStep::Publish { txid: raw_tx.clone(), raw_tx, fee_sat }),
    ]
}

fn terms(payreq: String) -> PayTerms {
    PayTerms {
        payreq,
        payment_hash: String::new(),
        payee: String::new(),
        amount_msat: Msat(1),
        amount_is_ours: false,
        max_fee_sat: Sat(1),
        expires_at: OffsetDateTime::UNIX_EPOCH,
        open: OpenPolicy::Auto,
        capacity_sat: None,
        max_open_fee_sat: None,
        peer: String::new(),
        peer_address: None,
    }
}

fn opening(outpoint: String) -> Opening {
    Opening {
        peer: String::new(),
        peer_address: String::new(),
        capacity_sat: Sat(1),
        sat_per_vbyte: 1,
        fee_sat: Sat(1),
        outpoints: vec![outpoint],
    }
}

fn pay_step() -> impl Strategy<Value = PayStep> {
    prop_oneof![
        Just(PayStep::Send),
        Just(PayStep::PlanOpening),
        text().prop_map(|outpoint| PayStep::Connect { opening: opening(outpoint) }),
        (text(), any::<bool>()).prop_map(|(outpoint, put_off)| PayStep::Open {
            opening: opening(outpoint),
            put_off: put_off.then_some(OffsetDateTime::UNIX_EPOCH),
        }),
        text().prop_map(|channel_point| PayStep::AwaitChannel { channel_point }),
        text().prop_map(|channel_point| PayStep::SendOverNew { channel_point, since: OffsetDateTime::UNIX_EPOCH }),
    ]
}

fn opened() -> impl Strategy<Value = Option<Opened>> {
    let opened = |channel_point| Opened { channel_point, capacity_sat: Sat(1), fee_sat: Sat(1), peer: String::new() };
    proptest::option::of(text().prop_map(opened))
}

fn close() -> impl Strategy<Value = Work> {
    let fee =
        |max_fee_sat| CloseFee { capacity_sat: Sat(1), max_fee_sat, max_sat_per_vbyte: 1, commit_fee_sat: Sat(1) };
    let steps = select(CloseStep::ALL.to_vec());
    (text(), any::<bool>(), proptest::option::of(sat().prop_map(fee)), any::<bool>(), steps).prop_map(
        |(channel_point, force, fee, asked, step)| {
            Work::Close(Close { pubkey: String::new(), channel_point, force, fee, asked, step })
        },
    )
}

fn funding(step: SendStep, address: String) -> Work {
    let operation = OperationId::random(OffsetDateTime::UNIX_EPOCH, &mut rng());
    let node = NodeId::random(&mut rng());
    Work::Funding(FundingBatch { outputs: vec![FundingOutput { operation, node, address, amount_sat: Sat(1) }], step })
}

/// Always the same one.
fn rng() -> rand::rngs::StdRng {
    rand::SeedableRng::seed_from_u64(1)
}

fn frozen(generation: u64) -> Frozen {
    Frozen {
        host: HostId::random(&mut rng()),
        generation,
        template: Template { id: String::new(), version: 1 },
        place_number: 0,
        place: Place { subnet: String::new(), instance_type: String::new() },
        client_token: generation.to_string(),
        tags: Default::default(),
        user_data: String::new(),
        without_device: None,
        ended_before: 0,
        authority: String::new(),
        join_until: OffsetDateTime::UNIX_EPOCH,
    }
}

fn launch_step() -> impl Strategy<Value = LaunchStep> {
    let frozen = || (1u64..3).prop_map(frozen);
    let instance = || text().prop_map(InstanceId);
    prop_oneof![
        Just(LaunchStep::first()),
        frozen().prop_map(|frozen| LaunchStep::Run { frozen }),
        frozen().prop_map(|frozen| LaunchStep::Find { frozen, since: OffsetDateTime::UNIX_EPOCH }),
        (frozen(), instance()).prop_map(|(frozen, instance)| LaunchStep::AwaitJoin { frozen, instance }),
        (frozen(), instance()).prop_map(|(frozen, instance)| LaunchStep::Retire { frozen, instance }),
    ]
}

fn recover_step() -> impl Strategy<Value = RecoverStep> {
    let volume = || text().prop_map(|id| DataVolume { id: VolumeId(id), device: String::new() });
    let launched = || ((1u64..3).prop_map(frozen), text().prop_map(InstanceId));
    prop_oneof![
        2 => Just(RecoverStep::first()),
        1 => text().prop_map(|instance| RecoverStep::End { instance: InstanceId(instance) }),
        4 => (volume(), launch_step()).prop_map(|(volume, launch)| RecoverStep::Replace { volume, launch }),
        1 => (volume(), launched())
            .prop_map(|(volume, (frozen, instance))| RecoverStep::Attach { volume, frozen, instance }),
        1 => launched().prop_map(|(frozen, instance)| RecoverStep::AwaitJoin { frozen, instance }),
        1 => text().prop_map(|id| RecoverStep::AwaitLnds { instance: InstanceId(id), operations: Vec::new() }),
    ]
}

fn upgrade_step() -> impl Strategy<Value = UpgradeStep> {
    let at = OffsetDateTime::UNIX_EPOCH;
    let lnd = || select(vec!["ab", "cd"]).prop_map(|two| Sha256::try_from(two.repeat(32)).expect("a digest"));
    let replaced = move || {
        (lnd(), text()).prop_map(|(lnd, version)| {
            let before = Look { version, ..Look::default() };
            Replaced { lnd, former: None, before }
        })
    };
    prop_oneof![
        Just(UpgradeStep::Install),
        lnd().prop_map(move |lnd| UpgradeStep::Drain { lnd, until: at }),
        replaced().prop_map(UpgradeStep::Stop),
        replaced().prop_map(move |replaced| UpgradeStep::Start { replaced, until: at }),
        replaced().prop_map(move |replaced| UpgradeStep::Gate { replaced, since: at, until: at }),
        replaced().prop_map(|replaced| UpgradeStep::BackStop { replaced, why: String::new() }),
        replaced().prop_map(|replaced| UpgradeStep::BackStart { replaced, why: String::new() }),
    ]
}

fn replaced_of(step: &UpgradeStep) -> Option<&Replaced> {
    match step {
        UpgradeStep::Install | UpgradeStep::Drain { .. } => None,
        UpgradeStep::Stop(replaced)
        | UpgradeStep::Start { replaced, .. }
        | UpgradeStep::Gate { replaced, .. }
        | UpgradeStep::BackStop { replaced, .. }
        | UpgradeStep::BackStart { replaced, .. } => Some(replaced),
    }
}

/// Any work at any step.
fn work() -> impl Strategy<Value = Work> {
    let all_or_some = select(vec![WithdrawAmount::All, WithdrawAmount::Sat(Sat(1))]);
    prop_oneof![
        1 => (sat(), select(CreateStep::ALL.to_vec()))
            .prop_map(|(initial_funding_sat, step)| Work::Create(Create { initial_funding_sat, step })),
        4 => (text(), opened(), pay_step())
            .prop_map(|(payreq, opened, step)| Work::Pay(Pay { terms: terms(payreq), opened, step })),
        1 => close(),
        2 => (text(), all_or_some, sat(), send_step()).prop_map(|(address, amount, max_fee_sat, step)| {
            Work::Withdraw(Withdraw { address, amount, at_most_sat: Sat(1), max_fee_sat, step })
        }),
        1 => select(DeleteStep::ALL.to_vec()).prop_map(|step| Work::Delete(Delete { step })),
        2 => (send_step(), text()).prop_map(|(step, address)| funding(step, address)),
        2 => launch_step().prop_map(|step| Work::Launch(Launch { step })),
        2 => (any::<bool>(), recover_step())
            .prop_map(|(terminate, step)| Work::Recover(Recover { terminate, step })),
        3 => (1u64..3, upgrade_step()).prop_map(|(serial, step)| Work::Upgrade(Upgrade { serial, step })),
    ]
}

/// The same work as it is accepted.
fn at_its_start(work: Work) -> Work {
    match work {
        Work::Create(w) => Work::Create(Create { step: CreateStep::Place, ..w }),
        Work::Pay(w) => Work::Pay(Pay { opened: None, step: PayStep::Send, ..w }),
        Work::Close(w) => Work::Close(Close { asked: false, step: CloseStep::Connect, ..w }),
        Work::Withdraw(w) => Work::Withdraw(Withdraw { step: SendStep::Fund, ..w }),
        Work::Delete(_) => Work::Delete(Delete { step: DeleteStep::Check }),
        Work::Funding(w) => Work::Funding(FundingBatch { step: SendStep::Fund, ..w }),
        Work::Launch(_) => Work::Launch(Launch { step: LaunchStep::first() }),
        Work::Recover(w) => Work::Recover(Recover { step: RecoverStep::first(), ..w }),
        Work::Resume(Resume { host, generation }) => Work::Resume(Resume { host, generation }),
        Work::Update(work) => Work::Update(work),
        Work::Upgrade(w) => Work::Upgrade(Upgrade { step: UpgradeStep::Install, ..w }),
    }
}

fn send_step_of(work: &Work) -> Option<&SendStep> {
    match work {
        Work::Withdraw(withdraw) => Some(&withdraw.step),
        Work::Funding(batch) => Some(&batch.step),
        _ => None,
    }
}

/// What must hold between any two points of a way, however many steps lie between.
fn holds(earlier: &Work, later: &Work) -> Result<(), TestCaseError> {
    prop_assert_eq!(earlier.kind(), later.kind());
    if let (Some(SendStep::Publish { raw_tx: then, .. }), Some(now)) = (send_step_of(earlier), send_step_of(later)) {
        prop_assert!(matches!(now, SendStep::Publish { raw_tx, .. } if raw_tx == then), "another transaction");
    }
    match (earlier, later) {
        (Work::Create(then), Work::Create(now)) => {
            prop_assert!(!then.step.wallet_may_exist() || now.step.wallet_may_exist(), "a wallet was forgotten");
        }
        (Work::Pay(then), Work::Pay(now)) => {
            prop_assert_eq!(&then.terms, &now.terms);
            prop_assert!(then.opened.is_none() || then.opened == now.opened, "a channel was forgotten");
            let opens = matches!(now.step, PayStep::Connect { .. } | PayStep::Open { .. });
            prop_assert!(then.opened.is_none() || !opens, "a second channel");
        }
        (Work::Close(then), Work::Close(now)) => {
            prop_assert_eq!((&then.channel_point, then.fee), (&now.channel_point, now.fee));
            prop_assert!(now.force || !then.force, "force was taken back");
        }
        (Work::Withdraw(then), Work::Withdraw(now)) => {
            prop_assert_eq!(
                (&then.address, then.amount, then.max_fee_sat),
                (&now.address, now.amount, now.max_fee_sat)
            );
        }
        (Work::Delete(then), Work::Delete(now)) => prop_assert!(then.step <= now.step),
        (Work::Upgrade(then), Work::Upgrade(now)) => {
            prop_assert_eq!(then.serial, now.serial);
            let (before, after) = (replaced_of(&then.step), replaced_of(&now.step));
            prop_assert!(before.is_none() || before == after, "what it is measured by was changed");
            let goes_back = |step: &UpgradeStep| step.name().starts_with("back");
            prop_assert!(!goes_back(&then.step) || goes_back(&now.step), "it went forth again");
        }
        (Work::Recover(then), Work::Recover(now)) => {
            prop_assert_eq!(then.terminate, now.terminate);
            let joined = |work: &Recover| matches!(work.step, RecoverStep::AwaitLnds { .. });
            prop_assert!(!joined(then) || joined(now), "a machine with lnds was replaced");
        }
        _ => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A way through all that is proposed and allowed.
    #[test]
    fn no_way_leads_back_behind_what_cannot_be_taken_back(start in work(), proposed in proptest::collection::vec(work(), 1..120)) {
        let mut way = vec![at_its_start(start)];
        for next in proposed {
            let now = way.last().expect("it starts somewhere");
            prop_assert!(now.may_become(now), "everything may stay as it is");
            if now.may_become(&next) {
                way.push(next);
            }
        }
        for (n, earlier) in way.iter().enumerate() {
            for later in &way[n..] {
                holds(earlier, later)?;
            }
        }
    }
}

/// And the order is not stricter than the workflows are.
#[test]
fn every_way_the_workflows_go_is_open() {
    let pay = |opened: Option<&str>, step| {
        let opened = opened.map(|point| Opened {
            channel_point: point.to_owned(),
            capacity_sat: Sat(1),
            fee_sat: Sat(1),
            peer: String::new(),
        });
        Work::Pay(Pay { terms: terms(String::new()), opened, step })
    };
    let await_channel = || PayStep::AwaitChannel { channel_point: "c".to_owned() };
    let over_new = || PayStep::SendOverNew { channel_point: "c".to_owned(), since: OffsetDateTime::UNIX_EPOCH };
    let connect = PayStep::Connect { opening: opening("o".to_owned()) };
    let open = PayStep::Open { opening: opening("o".to_owned()), put_off: None };
    let put_off = PayStep::Open { opening: opening("o".to_owned()), put_off: Some(OffsetDateTime::UNIX_EPOCH) };
    let opens = [
        pay(None, PayStep::Send),
        pay(None, PayStep::PlanOpening),
        pay(None, connect.clone()),
        pay(None, open.clone()),
        // The coins have changed.
        pay(None, PayStep::PlanOpening),
        pay(None, connect),
        pay(None, open),
        // The peer is not ready for it.
        pay(None, put_off),
        pay(Some("c"), await_channel()),
        pay(Some("c"), over_new()),
    ];
    // Over a channel that was being opened anyway, which is not enough.
    let waits = [
        pay(None, PayStep::PlanOpening),
        pay(None, await_channel()),
        pay(None, over_new()),
        pay(None, PayStep::PlanOpening),
    ];
    let create = |step| Work::Create(Create { initial_funding_sat: Sat(1), step });
    let mut creates: Vec<Work> = CreateStep::ALL.map(create).to_vec();
    // lnd was restarted: locked again.
    creates.splice(
        5..5,
        [create(CreateStep::InitWallet), create(CreateStep::ProveMacaroon), create(CreateStep::AwaitActive)],
    );
    creates.splice(8..8, [create(CreateStep::InitWallet), create(CreateStep::ProveMacaroon)]);
    // Its host was revoked.
    creates.splice(2..2, [create(CreateStep::Place), create(CreateStep::StartLnd)]);
    creates.splice(5..5, [create(CreateStep::Place), create(CreateStep::StartLnd), create(CreateStep::SealSecrets)]);
    creates.extend([CreateStep::DepositAddress, CreateStep::AwaitFunding].map(create));
    let close = |step, asked| {
        let (pubkey, channel_point) = (String::new(), String::new());
        Work::Close(Close { pubkey, channel_point, force: false, fee: None, asked, step })
    };
    let closes = [
        close(CloseStep::Connect, false),
        close(CloseStep::Close, true),
        close(CloseStep::Connect, false),
        close(CloseStep::Close, true),
    ];
    let deletes = DeleteStep::ALL.map(|step| Work::Delete(Delete { step }));
    let sends = [
        SendStep::Fund,
        SendStep::Finalize { psbt: String::new(), fee_sat: Sat(1) },
        SendStep::Publish { raw_tx: String::new(), txid: String::new(), fee_sat: Sat(1) },
    ]
    .map(|step| funding(step, String::new()));
    for way in [&opens[..], &waits[..], &creates[..], &closes[..], &deletes[..], &sends[..]] {
        for pair in way.windows(2) {
            assert!(pair[0].may_become(&pair[1]), "{:?} to {:?}", pair[0], pair[1]);
        }
    }
}
