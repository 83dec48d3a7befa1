//! Payment requests that no lnd here would make.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use std::time::{Duration, SystemTime};

/// A key that nobody here has.
pub const SOMEBODY: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

const HOUR: Duration = Duration::from_secs(3600);

/// What is special about one.
#[derive(Debug, Clone)]
pub struct Payreq {
    pub currency: Currency,
    pub amount_sat: Option<u64>,
    pub has_expired: bool,
    pub expiry: Duration,
    /// It names a payee who has not signed it.
    pub is_forged: bool,
}

impl Payreq {
    pub fn good(amount_sat: u64) -> Self {
        Self {
            currency: Currency::Simnet,
            amount_sat: Some(amount_sat),
            has_expired: false,
            expiry: HOUR,
            is_forged: false,
        }
    }

    pub fn text(self) -> String {
        let secp = Secp256k1::new();
        let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let made = if self.has_expired { now - Duration::from_secs(7200) } else { now };
        let builder = InvoiceBuilder::new(self.currency)
            .description("tea".into())
            .payment_hash(sha256::Hash::from_slice(&[1; 32]).unwrap())
            .payment_secret(PaymentSecret([2; 32]))
            .duration_since_epoch(made)
            .expiry_time(self.expiry)
            .min_final_cltv_expiry_delta(80);
        let builder = if self.is_forged { builder.payee_pub_key(key(9).public_key(&secp)) } else { builder };
        let raw = match self.amount_sat {
            Some(sat) => builder.amount_milli_satoshis(sat * 1000).build_raw(),
            None => builder.build_raw(),
        };
        let signed = raw.unwrap().sign(|hash| Ok::<_, ()>(secp.sign_ecdsa_recoverable(hash, &key(7))));
        signed.unwrap().to_string()
    }
}

/// One that could be paid, were there a way to the payee.
pub fn good(amount_sat: u64) -> String {
    Payreq::good(amount_sat).text()
}
