//! The on-chain wallet. Sends go FundPsbt → FinalizePsbt → (keep the raw transaction) → PublishTransaction, because
//! only the last may be repeated freely.

use bitcoin::Txid;

use super::node::found;
use super::{LndClient, READ, WRITE, request};
use crate::lnd::macaroon::Macaroon;
use crate::lnd::proto::{lnrpc, walletrpc};
use crate::lnd::{LndError, LndErrorKind};

impl LndClient {
    pub async fn wallet_balance(&self, macaroon: &Macaroon) -> Result<lnrpc::WalletBalanceResponse, LndError> {
        let request = request(macaroon, lnrpc::WalletBalanceRequest::default())?;
        self.unary(READ, self.lightning().wallet_balance(request)).await
    }

    pub async fn transactions(
        &self,
        macaroon: &Macaroon,
        ask: lnrpc::GetTransactionsRequest,
    ) -> Result<lnrpc::TransactionDetails, LndError> {
        let request = request(macaroon, ask)?;
        self.unary(READ, self.lightning().get_transactions(request)).await
    }

    /// A transaction of this wallet; `None` where the wallet has none of that id.
    pub async fn transaction(&self, macaroon: &Macaroon, txid: Txid) -> Result<Option<lnrpc::Transaction>, LndError> {
        let request = request(macaroon, walletrpc::GetTransactionRequest { txid: txid.to_string() })?;
        found(self.unary(READ, self.wallet_kit().get_transaction(request)).await)
    }

    /// An address that was never given out before.
    pub async fn new_address(
        &self,
        macaroon: &Macaroon,
        kind: lnrpc::AddressType,
    ) -> Result<lnrpc::NewAddressResponse, LndError> {
        let ask = lnrpc::NewAddressRequest { r#type: kind.into(), account: String::new() };
        let request = request(macaroon, ask)?;
        self.unary(WRITE, self.lightning().new_address(request)).await
    }

    /// Outputs of the wallet that no lease holds, with at least `min_confs` confirmations.
    pub async fn list_unspent(&self, macaroon: &Macaroon, min_confs: i32) -> Result<Vec<lnrpc::Utxo>, LndError> {
        let ask = walletrpc::ListUnspentRequest { min_confs, max_confs: i32::MAX, ..Default::default() };
        let request = request(macaroon, ask)?;
        Ok(self.unary(READ, self.wallet_kit().list_unspent(request)).await?.utxos)
    }

    /// The fee rate for a confirmation within `target_conf` blocks.
    pub async fn estimate_fee_rate(
        &self,
        macaroon: &Macaroon,
        target_conf: i32,
    ) -> Result<walletrpc::EstimateFeeResponse, LndError> {
        let request = request(macaroon, walletrpc::EstimateFeeRequest { conf_target: target_conf })?;
        self.unary(READ, self.wallet_kit().estimate_fee(request)).await
    }

    /// Picks and leases inputs. With a `custom_lock_id` the leases can be found again, and let go, by it.
    pub async fn fund_psbt(
        &self,
        macaroon: &Macaroon,
        ask: walletrpc::FundPsbtRequest,
    ) -> Result<walletrpc::FundPsbtResponse, LndError> {
        let request = request(macaroon, ask)?;
        self.unary(WRITE, self.wallet_kit().fund_psbt(request)).await
    }

    /// Signs a funded PSBT. Nothing is published.
    pub async fn finalize_psbt(
        &self,
        macaroon: &Macaroon,
        funded_psbt: Vec<u8>,
    ) -> Result<walletrpc::FinalizePsbtResponse, LndError> {
        let request = request(macaroon, walletrpc::FinalizePsbtRequest { funded_psbt, account: String::new() })?;
        self.unary(WRITE, self.wallet_kit().finalize_psbt(request)).await
    }

    /// Publishes a raw transaction; harmless to repeat, also when it is known or confirmed already. An error that
    /// lnd reports inside its answer is an error here.
    pub async fn publish_transaction(&self, macaroon: &Macaroon, raw_tx: Vec<u8>, label: &str) -> Result<(), LndError> {
        let ask = walletrpc::Transaction { tx_hex: raw_tx, label: label.to_owned() };
        let request = request(macaroon, ask)?;
        let answer = self.unary(WRITE, self.wallet_kit().publish_transaction(request)).await?;
        if answer.publish_error.is_empty() {
            return Ok(());
        }
        Err(LndError::new(LndErrorKind::Refused, answer.publish_error))
    }

    /// Every leased output.
    pub async fn list_leases(&self, macaroon: &Macaroon) -> Result<Vec<walletrpc::UtxoLease>, LndError> {
        let request = request(macaroon, walletrpc::ListLeasesRequest {})?;
        Ok(self.unary(READ, self.wallet_kit().list_leases(request)).await?.locked_utxos)
    }

    /// Lets a lease go. The id must be the one that took it.
    pub async fn release_output(
        &self,
        macaroon: &Macaroon,
        id: Vec<u8>,
        outpoint: lnrpc::OutPoint,
    ) -> Result<(), LndError> {
        let request = request(macaroon, walletrpc::ReleaseOutputRequest { id, outpoint: Some(outpoint) })?;
        self.unary(WRITE, self.wallet_kit().release_output(request)).await.map(drop)
    }
}
