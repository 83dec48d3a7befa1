//! Reads a payment request (BOLT 11) and refuses it before any effect where it cannot be paid.

use super::amount::{Msat, Sat};
use super::network::Network;
use super::problem::{Code, Refusal};
use lightning_invoice::{Bolt11Invoice, Bolt11ParseError, Bolt11SemanticError, Currency, ParseOrSemanticError};
use time::OffsetDateTime;

/// What a payment request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoice {
    /// The payment hash, hexadecimal.
    pub payment_hash: String,
    /// The payee's key, hexadecimal (33 bytes, compressed).
    pub payee: String,
    /// The amount, where it names one.
    pub amount_msat: Option<Msat>,
    /// When it expires.
    pub expires_at: OffsetDateTime,
    /// How many blocks the payee wants left of the last HTLC's time when it comes (`min_final_cltv_expiry_delta`).
    pub final_cltv_delta: u32,
}

fn currency(network: Network) -> Currency {
    match network {
        Network::Simnet => Currency::Simnet,
        Network::Regtest => Currency::Regtest,
        Network::Testnet4 => Currency::BitcoinTestnet,
        Network::Signet => Currency::Signet,
        Network::Mainnet => Currency::Bitcoin,
    }
}

impl Invoice {
    /// Reads `payreq`, whose signature must fit and which must be for `network`.
    ///
    /// # Errors
    /// [`Code::PayreqMalformed`], [`Code::PayreqBadSignature`], [`Code::PayreqWrongNetwork`].
    pub fn parse(payreq: &str, network: Network) -> Result<Self, Refusal> {
        let invoice: Bolt11Invoice = payreq.parse().map_err(|e| refuse(&e))?;
        if invoice.currency() != currency(network) {
            let message = format!("this payment request is not for {network}");
            return Err(Refusal::parameter(Code::PayreqWrongNetwork, "payreq", message));
        }
        let payee = invoice.payee_pub_key().copied().unwrap_or_else(|| invoice.recover_payee_pub_key());
        let malformed = || Refusal::parameter(Code::PayreqMalformed, "payreq", "its expiry is out of range");
        let expires = invoice.expires_at().ok_or_else(malformed)?;
        let seconds = i64::try_from(expires.as_secs()).map_err(|_| malformed())?;
        Ok(Self {
            payment_hash: hex::encode(AsRef::<[u8]>::as_ref(invoice.payment_hash())),
            payee: hex::encode(payee.serialize()),
            amount_msat: invoice.amount_milli_satoshis().map(Msat),
            expires_at: OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| malformed())?,
            final_cltv_delta: u32::try_from(invoice.min_final_cltv_expiry_delta()).map_err(|_| malformed())?,
        })
    }

    /// What the payee is to get: what the payment request says, or `pay_amt` where it says nothing.
    ///
    /// # Errors
    /// [`Code::PayreqNoAmount`] when neither does, [`Code::PayreqAmountConflict`] when they differ.
    pub fn amount(&self, pay_amt: Option<Sat>) -> Result<Msat, Refusal> {
        match (self.amount_msat, pay_amt) {
            (Some(Msat(0)) | None, None) => {
                let message = "the payment request names no amount: say how much with pay_amt";
                Err(Refusal::parameter(Code::PayreqNoAmount, "pay_amt", message))
            }
            (Some(Msat(0)) | None, Some(amount)) => Ok(amount.to_msat()),
            (Some(amount), None) => Ok(amount),
            (Some(amount), Some(asked)) if asked.to_msat() == amount => Ok(amount),
            (Some(_), Some(_)) => {
                let message = "the payment request names another amount: leave pay_amt out";
                Err(Refusal::parameter(Code::PayreqAmountConflict, "pay_amt", message))
            }
        }
    }
}

fn refuse(error: &ParseOrSemanticError) -> Refusal {
    match error {
        ParseOrSemanticError::SemanticError(Bolt11SemanticError::InvalidSignature)
        | ParseOrSemanticError::ParseError(Bolt11ParseError::MalformedSignature(_)) => {
            Refusal::parameter(Code::PayreqBadSignature, "payreq", "its signature does not fit")
        }
        ParseOrSemanticError::ParseError(Bolt11ParseError::UnknownCurrency) => {
            Refusal::parameter(Code::PayreqWrongNetwork, "payreq", "it is for a network that is not known here")
        }
        ParseOrSemanticError::ParseError(_) | ParseOrSemanticError::SemanticError(_) => {
            Refusal::parameter(Code::PayreqMalformed, "payreq", "this is not a payment request (BOLT 11)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::{Hash, sha256};
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning_invoice::{InvoiceBuilder, PaymentSecret};
    use std::time::Duration;

    fn invoice(currency: Currency, amount: Option<u64>, named_payee: Option<SecretKey>) -> String {
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(&[7; 32]).expect("a key");
        let builder = InvoiceBuilder::new(currency)
            .description("tea".into())
            .payment_hash(sha256::Hash::from_slice(&[1; 32]).expect("32 bytes"))
            .payment_secret(PaymentSecret([2; 32]))
            .duration_since_epoch(Duration::from_secs(1_700_000_000))
            .expiry_time(Duration::from_secs(600))
            .min_final_cltv_expiry_delta(80);
        let builder = match named_payee {
            Some(payee) => builder.payee_pub_key(payee.public_key(&secp)),
            None => builder,
        };
        let signed = match amount {
            Some(msat) => builder.amount_milli_satoshis(msat).build_raw(),
            None => builder.build_raw(),
        };
        let raw = signed.expect("complete");
        raw.sign(|hash| Ok::<_, ()>(secp.sign_ecdsa_recoverable(hash, &key))).expect("signs").to_string()
    }

    #[test]
    fn reads_what_it_says() {
        let read = Invoice::parse(&invoice(Currency::Simnet, Some(5_000_123), None), Network::Simnet).expect("reads");
        assert_eq!(read.amount_msat, Some(Msat(5_000_123)));
        assert_eq!(read.payment_hash, "01".repeat(32));
        assert_eq!(read.expires_at.unix_timestamp(), 1_700_000_600);
        assert_eq!(read.amount(None).expect("named"), Msat(5_000_123));
        assert_eq!(read.amount(Some(Sat(5_000))).expect_err("differs").code, Code::PayreqAmountConflict);
    }

    #[test]
    fn refuses_each_with_its_own_code() {
        let code = |payreq: &str| Invoice::parse(payreq, Network::Simnet).expect_err("refused").code;
        assert_eq!(code("lnsb1nonsense"), Code::PayreqMalformed);
        assert_eq!(code(""), Code::PayreqMalformed);
        assert_eq!(code(&invoice(Currency::Regtest, Some(1000), None)), Code::PayreqWrongNetwork);
        let other = SecretKey::from_slice(&[9; 32]).expect("a key");
        assert_eq!(code(&invoice(Currency::Simnet, Some(1000), Some(other))), Code::PayreqBadSignature);
    }

    #[test]
    fn an_amount_must_come_from_somewhere() {
        let read = Invoice::parse(&invoice(Currency::Simnet, None, None), Network::Simnet).expect("reads");
        assert_eq!(read.amount(None).expect_err("nobody says").code, Code::PayreqNoAmount);
        assert_eq!(read.amount(Some(Sat(7))).expect("told"), Msat(7000));
    }
}
