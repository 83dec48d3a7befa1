//! Channels for the node that is measured: the treasury opens them, because it has the money.

use super::harness::{Deployment, eventually};
use super::report;
use scale_lnd::dev::treasury::TreasuryAccess;
use scale_lnd::lnd::macaroon::Macaroon;
use scale_lnd::lnd::proto::lnrpc::OpenChannelRequest;
use scale_lnd::lnd::{LndClient, PinnedCert};
use std::time::Duration;

const CAPACITY_SAT: i64 = 100_000;

/// Opens `count` channels to the user's node, one after the other (lnd takes one pending channel of a peer), and returns
/// how many there are.
pub async fn open(d: &Deployment, uuid: &str, count: usize) -> usize {
    report::progress(&format!("opening {count} channels"));
    let api = d.api_of(0);
    let node = api.get("node", &[("uuid", uuid)]).await.ok();
    let (pubkey, address) = (node["identity_pubkey"].as_str().unwrap(), node["p2p_address"].as_str().unwrap());
    let (treasury, macaroon) = client(&d.world.treasury);
    treasury.connect_peer(&macaroon, pubkey, address.rsplit('@').next().unwrap(), false).await.unwrap();
    for number in 1..=count {
        let ask = OpenChannelRequest {
            node_pubkey: hex::decode(pubkey).unwrap(),
            local_funding_amount: CAPACITY_SAT,
            sat_per_vbyte: 2,
            private: true,
            ..OpenChannelRequest::default()
        };
        treasury.open_channel(&macaroon, ask).await.unwrap();
        eventually("the channel is there", Duration::from_secs(30), || async {
            let listed = api.get("listchannels", &[("uuid", uuid)]).await.ok();
            let channels = listed["channels"].as_array().unwrap();
            (channels.len() == number && channels.iter().all(|channel| channel["active"] == true)).then_some(())
        })
        .await;
    }
    count
}

fn client(treasury: &TreasuryAccess) -> (LndClient, Macaroon) {
    let certificate = PinnedCert::from_pem(&std::fs::read(&treasury.certificate).unwrap()).unwrap();
    let macaroon = Macaroon::parse(&std::fs::read(&treasury.admin_macaroon).unwrap()).unwrap();
    (LndClient::new(&treasury.rpc.to_string(), &certificate).unwrap(), macaroon)
}
