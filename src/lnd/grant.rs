//! What each kind of call may do to a node: one narrow set of permissions each, so that the macaroon of a read route
//! cannot pay even if the master's code is wrong (design/money.md, rule 10).

use super::macaroon::Op;

/// A kind of call, and with it the only gRPC methods its macaroon opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grant {
    /// Everything that only looks.
    Read,
    /// The calls made most often. lnd reads the whole macaroon at each call: with [`Grant::Read`] a getinfo costs it half
    /// as much CPU again.
    GetInfo,
    Balances,
    Channels,
    Invoice,
    Pay,
    OpenChannel,
    CloseChannel,
    Peers,
    Address,
    /// On-chain sends, of users' withdrawals and of the treasury's funding.
    Withdraw,
    Backup,
    Stop,
    /// What `InitWallet` answers with: everything. For the operator, never for a route.
    Admin,
}

impl Grant {
    pub const ALL: [Self; 14] = [
        Self::Read,
        Self::GetInfo,
        Self::Balances,
        Self::Channels,
        Self::Invoice,
        Self::Pay,
        Self::OpenChannel,
        Self::CloseChannel,
        Self::Peers,
        Self::Address,
        Self::Withdraw,
        Self::Backup,
        Self::Stop,
        Self::Admin,
    ];

    /// Whether it only looks.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Read | Self::GetInfo | Self::Balances | Self::Channels)
    }

    /// The operations to bake for this kind of call.
    pub fn ops(self) -> Vec<Op> {
        match self {
            Self::Admin => ADMIN.iter().map(|&(entity, action)| Op::new(entity, action)).collect(),
            narrow => narrow.methods().iter().map(|&method| Op::uri(method)).collect(),
        }
    }

    /// The full gRPC paths this grant opens; none for [`Grant::Admin`], which is not made of methods.
    pub fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Read => READ,
            Self::GetInfo => &["/lnrpc.Lightning/GetInfo"],
            Self::Balances => &["/lnrpc.Lightning/ChannelBalance", "/lnrpc.Lightning/WalletBalance"],
            Self::Channels => &["/lnrpc.Lightning/ListChannels"],
            Self::Invoice => &["/lnrpc.Lightning/AddInvoice"],
            Self::Pay => &["/routerrpc.Router/SendPaymentV2"],
            Self::OpenChannel => &["/lnrpc.Lightning/OpenChannel"],
            Self::CloseChannel => &["/lnrpc.Lightning/CloseChannel"],
            Self::Peers => &["/lnrpc.Lightning/ConnectPeer", "/lnrpc.Lightning/DisconnectPeer"],
            Self::Address => &["/lnrpc.Lightning/NewAddress"],
            Self::Withdraw => WITHDRAW,
            Self::Backup => &["/lnrpc.Lightning/VerifyChanBackup"],
            Self::Stop => &["/lnrpc.Lightning/StopDaemon"],
            Self::Admin => &[],
        }
    }
}

const READ: &[&str] = &[
    "/lnrpc.Lightning/ChannelBalance",
    "/lnrpc.Lightning/ClosedChannels",
    "/lnrpc.Lightning/DecodePayReq",
    "/lnrpc.Lightning/GetInfo",
    "/lnrpc.Lightning/GetNodeInfo",
    "/lnrpc.Lightning/GetTransactions",
    "/lnrpc.Lightning/ListChannels",
    "/lnrpc.Lightning/ListInvoices",
    "/lnrpc.Lightning/ListPayments",
    "/lnrpc.Lightning/ListPeers",
    "/lnrpc.Lightning/LookupInvoice",
    "/lnrpc.Lightning/PendingChannels",
    "/lnrpc.Lightning/SubscribeChannelEvents",
    "/lnrpc.Lightning/WalletBalance",
    "/routerrpc.Router/TrackPaymentV2",
    "/verrpc.Versioner/GetVersion",
    "/walletrpc.WalletKit/EstimateFee",
    "/walletrpc.WalletKit/GetTransaction",
    "/walletrpc.WalletKit/ListLeases",
    "/walletrpc.WalletKit/ListUnspent",
];

const WITHDRAW: &[&str] = &[
    "/walletrpc.WalletKit/FinalizePsbt",
    "/walletrpc.WalletKit/FundPsbt",
    "/walletrpc.WalletKit/ListLeases",
    "/walletrpc.WalletKit/PublishTransaction",
    "/walletrpc.WalletKit/ReleaseOutput",
];

/// lnd's own admin permissions, v0.21.2.
const ADMIN: &[(&str, &str)] = &[
    ("address", "read"),
    ("address", "write"),
    ("info", "read"),
    ("info", "write"),
    ("invoices", "read"),
    ("invoices", "write"),
    ("macaroon", "generate"),
    ("macaroon", "read"),
    ("macaroon", "write"),
    ("message", "read"),
    ("message", "write"),
    ("offchain", "read"),
    ("offchain", "write"),
    ("onchain", "read"),
    ("onchain", "write"),
    ("peers", "read"),
    ("peers", "write"),
    ("signer", "generate"),
    ("signer", "read"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Methods that move money or change the node, with the one grant that may open each.
    const GUARDED: [(&str, Grant); 12] = [
        ("/routerrpc.Router/SendPaymentV2", Grant::Pay),
        ("/lnrpc.Lightning/OpenChannel", Grant::OpenChannel),
        ("/lnrpc.Lightning/CloseChannel", Grant::CloseChannel),
        ("/walletrpc.WalletKit/FundPsbt", Grant::Withdraw),
        ("/walletrpc.WalletKit/FinalizePsbt", Grant::Withdraw),
        ("/walletrpc.WalletKit/PublishTransaction", Grant::Withdraw),
        ("/walletrpc.WalletKit/ReleaseOutput", Grant::Withdraw),
        ("/lnrpc.Lightning/StopDaemon", Grant::Stop),
        ("/lnrpc.Lightning/ConnectPeer", Grant::Peers),
        ("/lnrpc.Lightning/DisconnectPeer", Grant::Peers),
        ("/lnrpc.Lightning/AddInvoice", Grant::Invoice),
        ("/lnrpc.Lightning/NewAddress", Grant::Address),
    ];

    #[test]
    fn money_is_opened_by_its_own_grant_alone() {
        for (method, owner) in GUARDED {
            for grant in Grant::ALL {
                let opens = grant.ops().contains(&Op::uri(method));
                assert_eq!(opens, grant == owner, "{grant:?} and {method}");
            }
        }
    }

    /// A call that no grant opens would be refused by lnd only when it is first needed; and what is not called needs no
    /// grant, nor a place in the wire format.
    #[test]
    fn what_the_client_calls_is_granted_and_nothing_else() {
        let services = [
            ("lnrpc.Lightning", include_str!("../../proto/lnrpc/lightning.proto")),
            ("routerrpc.Router", include_str!("../../proto/routerrpc/router.proto")),
            ("walletrpc.WalletKit", include_str!("../../proto/walletrpc/walletkit.proto")),
        ];
        let client = concat!(
            include_str!("client/channels.rs"),
            include_str!("client/node.rs"),
            include_str!("client/onchain.rs"),
            include_str!("client/payments.rs"),
        );
        // Asked by the tools of operators, who are given what reads.
        let mut called = BTreeSet::from(["/verrpc.Versioner/GetVersion".to_owned()]);
        for (service, proto) in services {
            let rpcs =
                proto.lines().filter_map(|line| line.trim_start().strip_prefix("rpc ")?.split([' ', '(']).next());
            for rpc in rpcs {
                assert!(client.contains(&format!(".{}(request)", snake_case(rpc))), "{rpc} is never called");
                called.insert(format!("/{service}/{rpc}"));
            }
        }
        let granted: BTreeSet<String> =
            Grant::ALL.iter().flat_map(|grant| grant.methods()).map(|&method| method.to_owned()).collect();
        assert_eq!(granted, called);
    }

    fn snake_case(name: &str) -> String {
        let mut snake = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        snake
    }

    #[test]
    fn only_admin_grants_by_entity() {
        for grant in Grant::ALL.into_iter().filter(|&grant| grant != Grant::Admin) {
            let ops = grant.ops();
            assert!(!ops.is_empty(), "{grant:?}");
            assert!(ops.iter().all(|op| op.entity == "uri"), "{grant:?}");
            assert_eq!(ops.len(), ops.iter().map(|op| &op.action).collect::<BTreeSet<_>>().len(), "{grant:?}");
        }
        assert!(Grant::Admin.ops().iter().all(|op| op.entity != "uri"));
    }

    #[test]
    fn what_only_looks_names_nothing_that_acts() {
        let acts =
            ["Send", "Open", "CloseC", "Add", "Connect", "Fund", "Finalize", "Publish", "New", "Stop", "Release"];
        for grant in Grant::ALL.into_iter().filter(|grant| grant.is_read()) {
            for method in grant.methods() {
                let call = method.rsplit('/').next().unwrap();
                assert!(!acts.iter().any(|verb| call.starts_with(verb)), "{method}");
                assert!(Grant::Read.methods().contains(method), "{method}");
            }
        }
    }
}
