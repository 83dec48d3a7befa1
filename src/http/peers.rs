//! Peers: `listpeers`, `addpeer`, `deletepeer`.

use super::call::{Call, ok};
use super::host::HostPort;
use super::idempotency;
use super::info::User;
use super::params::params;
use super::values::Pubkey;
use crate::lnd::LndErrorKind;
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc;
use crate::model::ids::Uuid;
use crate::model::problem::Refusal;
use axum::response::Response;

params! {
    /// Whom to connect to.
    pub struct AddParams {
        /// The user.
        uuid: Uuid,
        /// The peer.
        pubkey: Pubkey,
        /// Where the peer is, host:port.
        host: HostPort,
    }
}

params! {
    /// Whom to disconnect from.
    pub struct DeleteParams {
        /// The user.
        uuid: Uuid,
        /// The peer.
        pubkey: Pubkey,
    }
}

pub(super) async fn listpeers(call: Call, params: User) -> Result<Response, Refusal> {
    let lnd = call.lnd(&params.uuid, Grant::Read).await?;
    let answer = lnd.client.list_peers(&lnd.macaroon, lnrpc::ListPeersRequest::default()).await;
    ok(&lnd.done(answer).await?)
}

/// Being connected already is success.
pub(super) async fn addpeer(call: Call, params: AddParams) -> Result<Response, Refusal> {
    let node = call.node(&params.uuid).await?;
    let address = call.address(&params.uuid, &params.host).await?;
    let work = async move {
        let lnd = node.lnd(Grant::Peers).await?;
        match lnd.client.connect_peer(&lnd.macaroon, &params.pubkey.0, &address, false).await {
            Err(error) if error.kind == LndErrorKind::AlreadyConnected => {
                lnd.answered();
                Ok(lnrpc::ConnectPeerResponse { status: "already connected to peer".to_owned() })
            }
            answer => lnd.done(answer).await,
        }
    };
    idempotency::once(&call, work).await
}

pub(super) async fn deletepeer(call: Call, params: DeleteParams) -> Result<Response, Refusal> {
    let node = call.node(&params.uuid).await?;
    let work = async move {
        let lnd = node.lnd(Grant::Peers).await?;
        let answer = lnd.client.disconnect_peer(&lnd.macaroon, &params.pubkey.0).await;
        lnd.done(answer).await
    };
    idempotency::once(&call, work).await
}
