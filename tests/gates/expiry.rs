//! Fencing stands on lnd's word that a macaroon past its time opens nothing. Each call is one that would be refused anyhow,
//! so that nothing happens to the lnd that all tests share: only *why* it is refused differs.

use crate::harness;
use crate::harness::world::world;
use scale_lnd::lnd::macaroon::{Caveat, Macaroon};
use scale_lnd::lnd::proto::lnrpc::{CloseChannelRequest, OpenChannelRequest};
use scale_lnd::lnd::proto::routerrpc::SendPaymentRequest;
use scale_lnd::lnd::proto::walletrpc::FundPsbtRequest;
use scale_lnd::lnd::{LndClient, LndErrorKind, PinnedCert};
use std::time::Duration;
use time::OffsetDateTime;

/// What each spending call is refused for.
async fn refusals(lnd: &LndClient, macaroon: &Macaroon) -> [(&'static str, LndErrorKind); 6] {
    let payment = SendPaymentRequest { payment_request: "lnsb1".into(), timeout_seconds: 5, ..Default::default() };
    let mut payment = lnd.send_payment(macaroon, payment).unwrap();
    // The generator point: nobody's node.
    let nobody = hex::decode("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap();
    let open = OpenChannelRequest { node_pubkey: nobody, local_funding_amount: 100_000, ..Default::default() };
    let nowhere = bitcoin::OutPoint { txid: bitcoin::hashes::Hash::all_zeros(), vout: 0 };
    let close = CloseChannelRequest { channel_point: Some(nowhere.into()), ..Default::default() };
    [
        ("SendPaymentV2", payment.next().await.unwrap_err().kind),
        ("OpenChannel", lnd.open_channel(macaroon, open).await.unwrap_err().kind),
        ("CloseChannel", lnd.close_channel(macaroon, close).await.unwrap_err().kind),
        ("FundPsbt", lnd.fund_psbt(macaroon, FundPsbtRequest::default()).await.unwrap_err().kind),
        ("FinalizePsbt", lnd.finalize_psbt(macaroon, vec![0]).await.unwrap_err().kind),
        ("PublishTransaction", lnd.publish_transaction(macaroon, vec![0], "none").await.unwrap_err().kind),
    ]
}

#[test]
fn lnd_lets_nothing_be_spent_with_a_macaroon_past_its_time() {
    harness::run(Duration::from_secs(120), async {
        let treasury = &world().await.treasury;
        let cert = PinnedCert::from_pem(&std::fs::read(&treasury.certificate).unwrap()).unwrap();
        let lnd = LndClient::new(&treasury.rpc.to_string(), &cert).unwrap();
        let admin = Macaroon::parse(&std::fs::read(&treasury.admin_macaroon).unwrap()).unwrap();
        let now = OffsetDateTime::now_utc();
        let until = |seconds| admin.with_caveat(Caveat::TimeBefore(now + time::Duration::seconds(seconds)));
        for (call, kind) in refusals(&lnd, &until(-1)).await {
            assert_eq!(kind, LndErrorKind::MacaroonRejected, "{call}");
        }
        for (call, kind) in refusals(&lnd, &until(3600)).await {
            assert_ne!(kind, LndErrorKind::MacaroonRejected, "{call}: while it is good, lnd looks at what is asked");
        }
    });
}
