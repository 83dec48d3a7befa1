//! Macaroons baked offline from the root key that the wallet was initialised with (facts: bakery v2 format).
