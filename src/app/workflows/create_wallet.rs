//! The wallet's part of `create`. Seed, password and keys are sealed, stored, read back and opened before the wallet
//! exists; [`init_wallet`] is the pivot.

use super::super::fleet::is_on_revoked_host;
use super::super::keys::field;
use super::super::step::{Advance, Ctx};
use super::create::{at, next_with};
use crate::error::{Error, Result};
use crate::lnd::LndErrorKind;
use crate::lnd::client::{LndClient, NewWallet};
use crate::lnd::macaroon::Grant;
use crate::lnd::proto::lnrpc::{AddressType, WalletState};
use crate::model::deployment::Deployment;
use crate::model::node::{Node, Secrets};
use crate::model::problem::{Code, Refusal};
use crate::model::work::create::{Create, CreateStep};
use crate::seal::SealError;
use crate::store::repo::{self, Versioned};
use crate::store::{IndexEntry, Store};
use bitcoin::secp256k1::PublicKey;
use rand::Rng;
use std::str::FromStr;
use std::time::Duration;
use zeroize::Zeroizing;

/// Why a create is parked whose lnd has the identity of another node.
pub(super) const ANOTHERS: &str = "the node's lnd has the identity of another node";
/// How long one step waits for lnd before it shows itself again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes the secrets and stores them sealed; the commit also says that a wallet may exist from now on.
pub(super) async fn seal_secrets(ctx: &Ctx, mut node: Versioned<Node>, work: &Create) -> Result<Advance> {
    if node.value.secrets.is_none() {
        let lnd = ctx.parts.lnds.client(&node.value)?;
        let entropy: Zeroizing<[u8; 16]> = random();
        let seed = match lnd.gen_seed(&entropy).await {
            Ok(seed) => seed,
            Err(e) if foreign_wallet(e.kind) => {
                return Ok(park("the new node has a wallet that this system did not make"));
            }
            Err(e) => return Err(e.into()),
        };
        let password = Zeroizing::new(hex::encode(random::<16>().as_slice()));
        node.value.secrets = Some(Secrets {
            seed: seal(ctx, &node.value, field::SEED, seed.as_bytes())?,
            wallet_password: seal(ctx, &node.value, field::WALLET_PASSWORD, password.as_bytes())?,
            macaroon_root_key: seal(ctx, &node.value, field::MACAROON_ROOT_KEY, random::<32>().as_slice())?,
            invoice_key: seal(ctx, &node.value, field::INVOICE_KEY, random::<32>().as_slice())?,
        });
    }
    node.value.wallet_may_exist = true;
    next_with(work, CreateStep::InitWallet, &node, "making the wallet")
}

fn foreign_wallet(kind: LndErrorKind) -> bool {
    matches!(kind, LndErrorKind::WalletExists | LndErrorKind::WalletLocked | LndErrorKind::WalletAlreadyUnlocked)
}

fn seal(ctx: &Ctx, node: &Node, field: &str, plaintext: &[u8]) -> Result<crate::seal::Sealed> {
    Ok(ctx.parts.keys.seal(node.id.as_str(), field, plaintext)?)
}

fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0u8; N]);
    rand::rng().fill_bytes(bytes.as_mut_slice());
    bytes
}

pub(super) fn park(message: &str) -> Advance {
    Advance::Park { refusal: Refusal::new(Code::Parked, message) }
}

/// Seals the secrets of a wallet to be again, if the sealing key was changed since they were sealed. Whoever changes it seals
/// again what there is after everybody was told of the new one; what a master that was not told yet stored after that would
/// need a key that may be destroyed. So no wallet is made before its secrets stand under the key that the Store names, or
/// stood there when it was not yet another: then the change finds them.
async fn under_the_key_in_use(ctx: &Ctx, node: &Versioned<Node>, work: &Create) -> Result<Option<Advance>> {
    let missing = |what: &str| Error::Invariant(format!("there is no {what}"));
    let deployment = repo::get::<Deployment>(&*ctx.parts.store, Deployment::ID).await?;
    let sealing = deployment.ok_or_else(|| missing("deployment in the store"))?.value.sealing();
    let mut node = node.clone();
    let secrets = node.value.secrets.as_mut().ok_or_else(|| missing("secret of the node"))?;
    let Secrets { seed, wallet_password, macaroon_root_key, invoice_key } = &*secrets;
    if [seed, wallet_password, macaroon_root_key, invoice_key].iter().all(|sealed| sealed.key_version() == sealing) {
        return Ok(None);
    }
    if ctx.parts.keys.sealing() != sealing {
        return Err(SealError::UnknownKeyVersion { version: sealing }.into());
    }
    ctx.parts.keys.seal_all_again(&node.value.id, secrets)?;
    next_with(work, CreateStep::InitWallet, &node, "sealing the secrets again").map(Some)
}

/// The pivot. `node` was read from the Store by this step, and everything is opened before lnd is asked, so that a wallet
/// never exists whose secrets cannot be had.
pub(super) async fn init_wallet(ctx: &Ctx, node: &Versioned<Node>, work: &Create) -> Result<Advance> {
    if let Some(first) = under_the_key_in_use(ctx, node, work).await? {
        return Ok(first);
    }
    let node = &node.value;
    let seed = ctx.parts.keys.open_of(node, field::SEED)?;
    let password = ctx.parts.keys.open_of(node, field::WALLET_PASSWORD)?;
    let root_key = ctx.parts.keys.root_key(node)?;
    ctx.parts.keys.open_of(node, field::INVOICE_KEY)?;
    let mnemonic = std::str::from_utf8(&seed).map_err(|_| Error::Invariant("a seed that is not words".to_owned()))?;
    let lnd = ctx.parts.lnds.client(node)?;
    let _turn = ctx.parts.scrypt_turn(node).await;
    // The turn may have taken long.
    if is_on_revoked_host(&*ctx.parts.store, node).await? {
        return Ok(Advance::again("the host was revoked", Duration::ZERO));
    }
    ctx.claim.check()?;
    match lnd.wallet_state().await? {
        WalletState::NonExisting => {
            let wallet = NewWallet { password: &password, mnemonic, macaroon_root_key: root_key.as_bytes() };
            match lnd.init_wallet(&wallet).await {
                Ok(()) => {}
                // Made by an earlier run of this step: with these very secrets, which were stored before any of them.
                Err(e) if foreign_wallet(e.kind) => return Ok(Advance::again("making the wallet", Duration::ZERO)),
                Err(e) => return Err(e.into()),
            }
        }
        WalletState::Locked => match lnd.unlock_wallet(&password).await {
            Ok(()) => {}
            Err(e) if e.kind == LndErrorKind::WalletAlreadyUnlocked => {}
            Err(e) if e.kind == LndErrorKind::WrongPassword => {
                return Ok(park("the wallet was made with another password"));
            }
            Err(e) => return Err(e.into()),
        },
        WalletState::WaitingToStart => return Ok(Advance::again("lnd is starting", super::SOON)),
        WalletState::Unlocked | WalletState::RpcActive | WalletState::ServerActive => {}
    }
    Ok(Advance::next(at(work, CreateStep::ProveMacaroon), "proving the macaroon"))
}

/// A real call with a macaroon baked here: lnd makes the wallet before it takes over the root key, so a crash in between
/// leaves one with another key.
pub(super) async fn prove_macaroon(ctx: &Ctx, node: &Versioned<Node>, work: &Create) -> Result<Advance> {
    let lnd = ctx.parts.lnds.client(&node.value)?;
    let state = lnd
        .within(PATIENCE)
        .wait_state(|s| matches!(s, WalletState::RpcActive | WalletState::ServerActive | WalletState::Locked))
        .await?;
    if state == WalletState::Locked {
        // It was restarted in between.
        return Ok(Advance::next(at(work, CreateStep::InitWallet), "unlocking the wallet"));
    }
    match lnd.get_info(&ctx.reading_macaroon(&node.value)?).await {
        Ok(_) => Ok(Advance::next(at(work, CreateStep::AwaitActive), "waiting for lnd to be synced")),
        Err(e) if e.kind == LndErrorKind::MacaroonRejected => {
            Ok(park("lnd has another macaroon root key than was given"))
        }
        Err(e) => Err(e.into()),
    }
}

pub(super) async fn await_active(ctx: &Ctx, mut node: Versioned<Node>, work: &Create) -> Result<Advance> {
    let lnd = ctx.parts.lnds.client(&node.value)?;
    let reached =
        lnd.within(PATIENCE).wait_state(|s| matches!(s, WalletState::ServerActive | WalletState::Locked)).await;
    match reached {
        Ok(WalletState::Locked) => return Ok(Advance::next(at(work, CreateStep::InitWallet), "unlocking the wallet")),
        Ok(_) => {}
        Err(e) if e.kind.is_not_ready() => return Ok(Advance::again("waiting for lnd to be synced", Duration::ZERO)),
        Err(e) => return Err(e.into()),
    }
    let info = lnd.get_info(&ctx.reading_macaroon(&node.value)?).await?;
    if PublicKey::from_str(&info.identity_pubkey).is_err() {
        return Ok(park("lnd has no public key"));
    }
    if is_anothers(&*ctx.parts.store, &node.value, Some(&info.identity_pubkey)).await? {
        tracing::error!(node = %node.value.id, "ALARM: an lnd says that it is the one of another node");
        return Ok(park(ANOTHERS));
    }
    node.value.identity_pubkey = Some(info.identity_pubkey);
    next_with(work, CreateStep::DepositAddress, &node, "asking for an address")
}

/// Whether this identity is that of another node already. What an lnd says of itself is only as good as its host.
pub(super) async fn is_anothers(store: &dyn Store, node: &Node, identity_pubkey: Option<&str>) -> Result<bool> {
    let Some(identity_pubkey) = identity_pubkey else { return Ok(false) };
    let index = IndexEntry { name: "pubkey", value: identity_pubkey.to_owned() };
    let (found, _) = repo::list::<Node>(store, Some(index), None, 2, false).await?;
    Ok(found.iter().any(|other| other.value.id != node.id))
}

/// An address that was not used: asked again it is the same one, so that a repeat leaves no trace.
pub(super) async fn new_address(ctx: &Ctx, node: &Node) -> Result<String> {
    let lnd: LndClient = ctx.parts.lnds.client(node)?;
    let macaroon = ctx.parts.keys.bake(node, Grant::Address, &[])?;
    Ok(lnd.new_address(&macaroon, AddressType::UnusedTaprootPubkey).await?.address)
}
