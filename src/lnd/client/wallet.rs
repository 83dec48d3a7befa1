//! How far the daemon has come, and making and unlocking its wallet. None of it needs a macaroon.

use std::fmt;

use tonic::Request;
use zeroize::Zeroizing;

use super::{LndClient, READ, SLOW, Updates};
use crate::lnd::proto::lnrpc::{self, WalletState};
use crate::lnd::{LndError, LndErrorKind};

/// What a wallet is made of. All of it must be kept safe before the wallet is made.
pub struct NewWallet<'a> {
    /// At least 8 bytes.
    pub password: &'a [u8],
    /// The 24 words of the seed, separated by blanks.
    pub mnemonic: &'a str,
    /// What every macaroon of this node is computed from.
    pub macaroon_root_key: &'a [u8; 32],
}

impl fmt::Debug for NewWallet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWallet").finish_non_exhaustive()
    }
}

impl LndClient {
    pub async fn wallet_state(&self) -> Result<WalletState, LndError> {
        let request = Request::new(lnrpc::GetStateRequest {});
        let answer = self.unary(READ, self.state_service().get_state(request)).await?;
        known(answer.state)
    }

    /// The state now, and each new one.
    pub fn wallet_states(&self) -> Updates<lnrpc::SubscribeStateResponse> {
        let mut client = self.state_service();
        let request = Request::new(lnrpc::SubscribeStateRequest {});
        Updates::new(async move { client.subscribe_state(request).await })
    }

    /// Waits until the state is one that `reached` accepts, by default for a minute. Past the deadline the error's
    /// kind tells how far lnd came; an lnd that does not listen yet is `Unreachable` at once.
    pub async fn wait_state(&self, reached: impl Fn(WalletState) -> bool) -> Result<WalletState, LndError> {
        let mut last = None;
        let mut states = self.wallet_states();
        let waited = self.timed(SLOW, async {
            while let Some(update) = states.next().await? {
                let state = known(update.state)?;
                last = Some(state);
                if reached(state) {
                    return Ok(state);
                }
            }
            Err(LndError::unexpected("the node ended the stream of its states"))
        });
        let outcome = waited.await;
        match (outcome, last) {
            (Err(error), Some(state)) if error.kind == LndErrorKind::Unknown => Err(not_reached(state, error)),
            (outcome, _) => outcome,
        }
    }

    /// Makes a seed from 16 bytes of entropy; nothing is kept by lnd. The words are separated by blanks.
    pub async fn gen_seed(&self, entropy: &[u8; 16]) -> Result<Zeroizing<String>, LndError> {
        let ask = lnrpc::GenSeedRequest { seed_entropy: entropy.to_vec(), aezeed_passphrase: Vec::new() };
        let answer = self.unary(SLOW, self.unlocker().gen_seed(Request::new(ask))).await?;
        let words: Vec<_> = answer.cipher_seed_mnemonic.into_iter().map(Zeroizing::new).collect();
        let mut mnemonic = Zeroizing::new(String::with_capacity(256));
        for word in &words {
            if !mnemonic.is_empty() {
                mnemonic.push(' ');
            }
            mnemonic.push_str(word);
        }
        Ok(mnemonic)
    }

    /// Makes the wallet, statelessly (lnd writes no macaroon files) and without a rescan. The pivot of a create.
    ///
    /// The deadline does not stop lnd. Two calls at the same time can both be answered; only one made the wallet, and
    /// the other's answer is empty, which is an error here. After success prove a macaroon by a call: lnd makes the
    /// wallet before it takes over the root key.
    pub async fn init_wallet(&self, wallet: &NewWallet<'_>) -> Result<(), LndError> {
        let ask = lnrpc::InitWalletRequest {
            wallet_password: wallet.password.to_vec(),
            cipher_seed_mnemonic: wallet.mnemonic.split_whitespace().map(str::to_owned).collect(),
            stateless_init: true,
            macaroon_root_key: wallet.macaroon_root_key.to_vec(),
            ..Default::default()
        };
        let answer = self.unary(SLOW, self.unlocker().init_wallet(Request::new(ask))).await?;
        if Zeroizing::new(answer.admin_macaroon).is_empty() {
            return Err(LndError::unexpected("another call made the wallet at the same time"));
        }
        Ok(())
    }

    /// Unlocks the wallet, statelessly.
    /// [`WalletAlreadyUnlocked`](LndErrorKind::WalletAlreadyUnlocked) is as good as success.
    pub async fn unlock_wallet(&self, password: &[u8]) -> Result<(), LndError> {
        let ask = lnrpc::UnlockWalletRequest {
            wallet_password: password.to_vec(),
            stateless_init: true,
            ..Default::default()
        };
        self.unary(SLOW, self.unlocker().unlock_wallet(Request::new(ask))).await.map(drop)
    }
}

fn known(state: i32) -> Result<WalletState, LndError> {
    WalletState::try_from(state).map_err(|_| LndError::unexpected(format!("the node is in a state {state}")))
}

/// What a state that was not left in time means for a call.
fn not_reached(state: WalletState, error: LndError) -> LndError {
    let kind = match state {
        WalletState::NonExisting => LndErrorKind::WalletNotCreated,
        WalletState::Locked => LndErrorKind::WalletLocked,
        WalletState::Unlocked => LndErrorKind::RpcStarting,
        WalletState::RpcActive => LndErrorKind::ServerStarting,
        WalletState::WaitingToStart => LndErrorKind::WaitingToStart,
        WalletState::ServerActive => error.kind,
    };
    LndError::new(kind, format!("{} (state {})", error.message, state.as_str_name()))
}
