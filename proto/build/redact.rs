//! Messages that carry secrets: their Debug shows the name only, so that no log line ever has more.

/// Of lnd's messages: these hold seeds, passwords, root keys and macaroons, and are never shown as JSON either.
pub const LND_SECRET: &[&str] = &[
    "lnrpc.GenSeedRequest",
    "lnrpc.GenSeedResponse",
    "lnrpc.InitWalletRequest",
    "lnrpc.InitWalletResponse",
    "lnrpc.UnlockWalletRequest",
];

/// Of lnd's messages: these hold the preimages of invoices, which their owner may read as JSON.
const LND_QUIET: &[&str] = &["lnrpc.Invoice", "lnrpc.AMP"];

/// All of lnd's messages whose Debug is made here.
pub fn lnd() -> Vec<&'static str> {
    [LND_SECRET, LND_QUIET].concat()
}

/// Of the host agent's.
pub const AGENT: &[&str] = &[
    "scalelnd.lndserver.v1.BtcdBackend",
    "scalelnd.lndserver.v1.BitcoindBackend",
    "scalelnd.lndserver.v1.EnrolRequest",
];

/// `Debug` for those of `secret` that belong to `package`.
pub fn debug_impls(package: &str, secret: &[&str]) -> String {
    let of_package = secret.iter().filter_map(|name| name.strip_prefix(package)?.strip_prefix('.'));
    of_package
        .map(|name| {
            let rust = crate::names::type_name(name);
            format!(
                "impl ::core::fmt::Debug for {rust} {{ \
                 fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{ \
                 f.debug_struct(\"{rust}\").finish_non_exhaustive() }} }}\n"
            )
        })
        .collect()
}
