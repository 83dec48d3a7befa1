//! What a master has, for unit tests that need no lnd and no host.

use super::keys::Keys;
use super::{Parts, Settings, feed, lease, lnds, parts};
use crate::clock::SharedClock;
use crate::lndserver::client::Agents;
use crate::lndserver::proto::NodeSpec;
use crate::model::amount::Sat;
use crate::model::app::Limits;
use crate::model::ids::{AppId, NodeId, OperationId, Uuid};
use crate::model::node::{Funding, Node, Phase};
use crate::model::{MasterId, Network};
use crate::pki::{Ca, Credentials, DEFAULT_LIFETIME, Identity, Trust};
use crate::seal::{SealKey, Sealer};
use crate::store::Store;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

const TTL: Duration = Duration::from_secs(1);

impl Parts {
    /// Of a deployment on simnet without hosts and without a treasury.
    pub(crate) fn for_tests(store: Arc<dyn Store>, clock: SharedClock) -> Arc<Self> {
        let mut rng = rand::rng();
        let id = MasterId::random(&mut rng);
        let ca = Ca::create("test", clock.now(), &mut rng).unwrap();
        let (issued, key) =
            ca.issue(&Identity::Master { id: id.to_string() }, DEFAULT_LIFETIME, clock.now(), &mut rng).unwrap();
        let own = Credentials::from_pem(&issued.cert_pem, &key, ca.cert()).unwrap();
        let sealer = Arc::new(Sealer::single(SealKey::from_bytes([7; 32])));
        Arc::new(Self {
            store,
            feed: feed::Feed::new(),
            lease: lease::Lease::new(id, TTL, Arc::clone(&clock)),
            observer: lease::Observer::new(TTL),
            keys: Keys::new(sealer, "test".to_owned(), Network::Simnet),
            lnds: lnds::Lnds::default(),
            agents: Agents::new(Trust::new(ca.cert().clone()).unwrap(), own),
            treasury: None,
            settings: Settings {
                network: Network::Simnet,
                initial_funding_sat: Sat(0),
                ceilings: Limits::default(),
                fixed_sat_per_vbyte: Some(1),
                open_margin: Duration::from_secs(60),
                spec: NodeSpec::default(),
            },
            supply: None,
            updates: None,
            turns: parts::Turns::default(),
            funding_turn: tokio::sync::Mutex::default(),
            clock,
        })
    }
}

/// Alice's, which was never placed.
pub(crate) fn node() -> Node {
    let mut rng = rand::rng();
    Node {
        id: NodeId::random(&mut rng),
        app: AppId::parse("shop").unwrap(),
        uuid: Uuid::parse("alice").unwrap(),
        phase: Phase::Creating,
        create_operation: OperationId::random(OffsetDateTime::UNIX_EPOCH, &mut rng),
        placement: None,
        endpoint: None,
        secrets: None,
        wallet_may_exist: false,
        identity_pubkey: None,
        deposit_address: None,
        funding: Funding::None,
        lnd: None,
        created_at: OffsetDateTime::UNIX_EPOCH,
    }
}
