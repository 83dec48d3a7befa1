//! `scale-lnd node credentials`: what an operator needs to look into a node with lncli, and no more than was asked for.

use crate::harness::command::{self, Done};
use crate::harness::{self, Deployment, Setup};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Runs the line that was printed, with another verb.
async fn lncli(d: &Deployment, line: &str, verb: &str) -> Done {
    let nodes = d.world.binaries.lnd.parent().unwrap();
    let path = format!("{}:{}", nodes.display(), std::env::var("PATH").unwrap_or_default());
    let line = format!("exec {} {verb}", line.trim().trim_end_matches(" getinfo"));
    command::run(&["/bin/sh", "-c", &line], &[("PATH", Some(&path))]).await
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_operator_looks_into_a_node_with_what_was_asked_for() {
    harness::run(Duration::from_secs(120), async {
        let d = Deployment::start(Setup { initial_funding_sat: 0, ..Setup::default() }).await;
        d.create_users(&["alice"]).await;
        let node = d.api().get("node", &[("uuid", "alice")]).await.ok();
        let folder = d.path("credentials");
        let out = folder.to_str().unwrap();
        let verb = ["node", "credentials", "--app", "app", "--uuid", "alice", "--out", out];

        let line = d.config_cli(&verb).await;
        assert!(
            line.starts_with("lncli --network=simnet --rpcserver=127.0.0.1:") && line.ends_with(" getinfo\n"),
            "{line}"
        );
        assert_eq!((mode(&folder), mode(&folder.join("read.macaroon"))), (0o700, 0o600));
        let looked = lncli(&d, &line, "getinfo").await;
        let info: serde_json::Value = serde_json::from_str(&looked.out).unwrap();
        assert_eq!(info["identity_pubkey"], node["identity_pubkey"]);
        let refused = lncli(&d, &line, "newaddress p2wkh").await;
        assert!(refused.err.contains("permission denied"), "{refused:?}");

        let line = d.config_cli(&[&verb[..], &["--grant", "address,invoice", "--hours", "1"]].concat()).await;
        assert!(lncli(&d, &line, "newaddress p2wkh").await.code == Some(0));
        assert!(lncli(&d, &line, "addinvoice 1000").await.code == Some(0));
        let refused = lncli(&d, &line, "walletbalance").await;
        assert!(refused.err.contains("permission denied"), "{refused:?}");
        d.stop().await;
    });
}
