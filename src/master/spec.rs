//! How every lnd of the deployment is run, from the configuration: the network, the chain backend, the options.

use super::MasterError;
use super::build::read;
use crate::config::chain::fault_of_password;
use crate::config::{ChainBackend, ChainRpc, Config};
use crate::lndserver::proto::{BitcoindBackend, BtcdBackend, NeutrinoBackend, NodeSpec, node_spec};
use secrecy::ExposeSecret;

/// What an agent is told of every lnd; whose it is and in which slot is filled in later.
///
/// # Errors
/// [`MasterError::File`] when a file that the configuration names cannot be used.
pub fn node_spec(config: &Config) -> Result<NodeSpec, MasterError> {
    let (chain, lnd) = (&config.chain, &config.lnd);
    let mut extra_args = lnd.extra_args.clone();
    if lnd.wumbo {
        extra_args.push("protocol.wumbo-channels=true".to_owned());
    }
    extra_args.extend(lnd.default_chan_confs.map(|confs| format!("bitcoin.defaultchanconfs={confs}")));
    extra_args.extend(chain.fee_url.as_ref().map(|url| format!("fee.url={url}")));
    Ok(NodeSpec {
        network: config.deployment.network.to_string(),
        backend: Some(backend(&chain.backend)?),
        rest: lnd.rest,
        extra_args,
        signet_challenge: chain.signet_challenge.clone().unwrap_or_default(),
        signet_seed_nodes: chain.signet_seed_nodes.clone(),
        ..NodeSpec::default()
    })
}

fn backend(backend: &ChainBackend) -> Result<node_spec::Backend, MasterError> {
    Ok(match backend {
        ChainBackend::Btcd { rpc, cert_file } => {
            const KEY: &str = "chain.rpc_cert_file";
            let certificate_pem = String::from_utf8(read(KEY, cert_file)?.to_vec())
                .map_err(|_| MasterError::File { key: KEY, reason: "is not PEM".to_owned() })?;
            node_spec::Backend::Btcd(BtcdBackend {
                rpc_host: rpc.host.clone(),
                rpc_user: rpc.user.clone(),
                rpc_password: password(rpc)?,
                certificate_pem,
            })
        }
        ChainBackend::Bitcoind { rpc, zmq } => {
            let (zmq_block, zmq_tx) = zmq.clone().map(|zmq| (zmq.block, zmq.tx)).unwrap_or_default();
            node_spec::Backend::Bitcoind(BitcoindBackend {
                rpc_host: rpc.host.clone(),
                rpc_user: rpc.user.clone(),
                rpc_password: password(rpc)?,
                zmq_block,
                zmq_tx,
            })
        }
        ChainBackend::Neutrino { peers, other_peers, headers } => {
            let (block, filter) = headers.clone().map(|headers| (headers.block, headers.filter)).unwrap_or_default();
            node_spec::Backend::Neutrino(NeutrinoBackend {
                peers: peers.clone(),
                other_peers: *other_peers,
                block_headers_source: block,
                filter_headers_source: filter,
            })
        }
    })
}

fn password(rpc: &ChainRpc) -> Result<String, MasterError> {
    let fault = |reason| MasterError::File { key: "chain.rpc_password_file", reason };
    let password = rpc.password.text().map_err(fault)?;
    match fault_of_password(password.expose_secret()) {
        Some(reason) => Err(fault(reason.to_owned())),
        None => Ok(password.expose_secret().to_owned()),
    }
}
