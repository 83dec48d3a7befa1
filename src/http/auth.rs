//! Who calls: `Authorization: Bearer slnd_…`, and what their key may do.

use crate::apikey::{ApiKey, ApiKeyHash, ApiKeyId};
use crate::app::directory::Directory;
use crate::model::Network;
use crate::model::app::{ApiKeyRecord, Scope};
use crate::model::ids::AppId;
use crate::model::problem::{Code, Refusal};
use http::{HeaderMap, header};
use std::sync::Arc;

/// Whoever holds a valid key.
#[derive(Debug, Clone)]
pub struct Caller(Arc<ApiKeyRecord>);

impl Caller {
    /// The holder of a key of this app, or of an operator's, with these scopes.
    #[cfg(test)]
    pub(super) fn of(app: Option<&str>, scopes: &[Scope]) -> Self {
        Self(Arc::new(ApiKeyRecord {
            id: ApiKeyId::try_from("0123456789abcdef".to_owned()).expect("an id"),
            app: app.and_then(AppId::parse),
            scopes: scopes.to_vec(),
            hash: ApiKeyHash::of_nothing(),
            note: String::new(),
            created_at: time::OffsetDateTime::UNIX_EPOCH,
            revoked_at: None,
        }))
    }

    /// The key's public name.
    #[must_use]
    pub fn key(&self) -> &ApiKeyId {
        &self.0.id
    }

    /// The app it belongs to.
    ///
    /// # Errors
    /// [`Code::Forbidden`] for an operator's key, which belongs to none.
    pub fn app(&self) -> Result<&AppId, Refusal> {
        let none = || Refusal::new(Code::Forbidden, "this key belongs to no app, and so to no user of one");
        self.0.app.as_ref().ok_or_else(none)
    }

    /// Whether it is an operator's. A key of an app never is, whatever its scopes say.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.0.app.is_none() && self.0.scopes.contains(&Scope::Operator)
    }

    /// Lets the call through if the key has one of `scopes`.
    ///
    /// # Errors
    /// [`Code::Forbidden`], naming them.
    pub fn must_have(&self, scopes: &[Scope]) -> Result<(), Refusal> {
        let has = |scope: &Scope| match scope {
            Scope::Operator => self.is_operator(),
            scope => self.0.app.is_some() && self.0.scopes.contains(scope),
        };
        if scopes.iter().any(has) {
            return Ok(());
        }
        let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let message = format!("this key lacks the scope {}", names.join(" or "));
        Err(Refusal::new(Code::Forbidden, message).with("scopes", names))
    }
}

/// The holder of the key in `headers`.
///
/// # Errors
/// [`Code::Unauthorized`], the same for every reason; or the Store does not answer and would have to.
pub async fn authenticate(headers: &HeaderMap, directory: &Directory, network: Network) -> Result<Caller, Refusal> {
    let no = || Refusal::new(Code::Unauthorized, "a valid API key is needed: Authorization: Bearer slnd_…");
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return Err(no()) };
    let key: Option<ApiKey> = bearer(value.as_bytes()).and_then(|token| token.parse().ok());
    let key = key.filter(|key| key.network() == network.as_str()).ok_or_else(no)?;
    let record = directory.api_key(key.id()).await?;
    let hash = record.as_ref().map_or_else(ApiKeyHash::of_nothing, |record| record.hash);
    record.filter(|_| hash.matches(&key)).map(Caller).ok_or_else(no)
}

/// Whether the caller's key is still good: streams outlive the moment it was checked in.
pub async fn is_still_valid(caller: &Caller, directory: &Directory) -> bool {
    matches!(directory.api_key(caller.key()).await, Ok(Some(_)))
}

fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_opens_itself_and_nothing_else() {
        let all = [Scope::Read, Scope::Invoice, Scope::Pay, Scope::Manage, Scope::Operator];
        for mine in all {
            let app = (mine != Scope::Operator).then_some("shop");
            for asked in all {
                let refused = Caller::of(app, &[mine]).must_have(&[asked]).map_err(|refusal| refusal.code);
                assert_eq!(
                    refused,
                    if mine == asked { Ok(()) } else { Err(Code::Forbidden) },
                    "{mine:?} for {asked:?}"
                );
            }
        }
        assert!(
            Caller::of(Some("shop"), &[Scope::Pay]).must_have(&[Scope::Read, Scope::Pay]).is_ok(),
            "one of them is enough"
        );
    }

    #[test]
    fn an_apps_key_is_never_an_operators_and_the_other_way_round() {
        let sneaky = Caller::of(Some("shop"), &[Scope::Operator]);
        assert!(sneaky.must_have(&[Scope::Operator]).is_err() && !sneaky.is_operator());
        let homeless = Caller::of(None, &[Scope::Operator, Scope::Read]);
        assert!(homeless.must_have(&[Scope::Read]).is_err() && homeless.app().is_err());
    }

    #[test]
    fn only_bearer_tokens_are_read() {
        assert_eq!(bearer(b"Bearer slnd_x"), Some("slnd_x"));
        assert_eq!(bearer(b"bearer  slnd_x"), Some("slnd_x"));
        for bad in [&b"slnd_x"[..], b"Basic slnd_x", b"Bearer", b"Bearer \xff"] {
            assert_eq!(bearer(bad), None);
        }
    }
}
