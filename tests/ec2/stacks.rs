//! Stacks of `deploy/cloudformation` on moto's CloudFormation, as docs/aws.md has them made: each with the outputs of those
//! before it.

use super::moto::{Account, Moto, python};
use crate::harness::command;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// The deployment that the stacks are for.
pub const DEPLOYMENT: &str = "test";
/// A key that wraps sealing keys.
pub const SEALING_KEY: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const FILES_SECRET: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:files-AbCdEf";

/// What came of them.
#[derive(Debug, Deserialize)]
pub struct Stacks {
    outputs: HashMap<String, String>,
    /// The statements of each role's policies, by the name of the output.
    pub statements: HashMap<String, Vec<Value>>,
    /// What machines boot from, by the name of the output.
    pub boots: HashMap<String, Boot>,
}

/// What a machine boots from.
#[derive(Debug, Deserialize)]
pub struct Boot {
    /// Its user data.
    pub user_data: String,
    /// The files that this writes.
    pub files: HashMap<String, String>,
}

impl Stacks {
    /// Makes those of these names, in an account's part that is a test's own.
    pub async fn make(account: &Account, names: &[&str], masters: usize) -> Self {
        let stack = |name: &&str| {
            let parameters = parameters(name, account, masters);
            json!({ "name": name, "template": template(name), "parameters": parameters })
        };
        let stacks: Vec<Value> = names.iter().map(stack).collect();
        let dir = tempfile::tempdir().unwrap();
        let plan = dir.path().join("plan.json");
        std::fs::write(&plan, json!({ "stacks": stacks }).to_string()).unwrap();
        let python = python().await;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ec2/stacks.py");
        let url = &Moto::shared().await.url;
        let parts = [python.to_str().unwrap(), script.to_str().unwrap(), url, &account.region, plan.to_str().unwrap()];
        // Nothing of this machine's own.
        let none = ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"].map(|name| (name, Some("/nonexistent")));
        let env = [none.as_slice(), &[("AWS_PROFILE", None), ("AWS_DEFAULT_PROFILE", None)]].concat();
        let done = command::run(&parts, &env).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        serde_json::from_str(&done.out).unwrap()
    }

    /// An output of any of them.
    pub fn output(&self, name: &str) -> &str {
        self.outputs.get(name).unwrap_or_else(|| panic!("no stack has the output {name}"))
    }

    /// The settings that they give to their masters.
    pub fn settings(&self) -> Vec<(&str, &str)> {
        let lines = self.boots["MasterTemplate"].files["/etc/scale-lnd/master.env"].lines();
        lines.map(|line| line.split_once('=').unwrap()).collect()
    }
}

/// A template as moto can read it.
pub fn template(name: &str) -> String {
    let text = file(&format!("deploy/cloudformation/{name}.yaml"));
    // To moto every balancer is one for HTTP.
    let passed_through = "      Protocol: TCP\n      Port: 8081\n      DefaultActions";
    assert_eq!(text.matches(passed_through).count(), usize::from(name == "masterlnd"), "{name}");
    text.replace(passed_through, &passed_through.replace("TCP", "HTTP"))
}

/// A file of the tree.
pub fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What is not an output of those before.
fn parameters(name: &str, account: &Account, masters: usize) -> Value {
    let (network, image, release) = (&account.network, &account.image, "https://releases.example.com/x.tar.gz");
    let mut parameters = match name {
        "network" => json!({
            "VpcCidr": format!("{network}.0/24"),
            "PublicCidrA": format!("{network}.0/26"),
            "PublicCidrB": format!("{network}.64/26"),
            "PrivateCidrA": format!("{network}.128/26"),
            "PrivateCidrB": format!("{network}.192/26"),
        }),
        "lndserver" => json!({ "ImageId": image, "PeersCidr": "192.0.2.0/24" }),
        "chain" => json!({
            "ImageId": image,
            "Address": format!("{network}.140"),
            "Backend": "btcd",
            "RpcPort": "18556",
            "PeerPort": "18555",
            "FilesSecret": FILES_SECRET,
            "ProgramUrl": release,
            "ProgramSha256": "0".repeat(64),
        }),
        "masterlnd" => json!({
            "ImageId": image,
            "HostType": "t3.small",
            "HostTypeElse": "t3.medium",
            "HostPrograms": programs(),
            "AlsoReach": format!("{network}.3:9735"),
            "MaxHosts": "7",
            "Masters": masters.to_string(),
            "ApiCidrs": "192.0.2.0/24,198.51.100.0/24",
            "FilesSecret": FILES_SECRET,
            "SealingKey": SEALING_KEY,
            "ProgramUrl": release,
            "ProgramSha256": "0".repeat(64),
        }),
        other => panic!("there is no template {other}"),
    };
    parameters["Deployment"] = DEPLOYMENT.into();
    parameters
}

/// What a host of these types is made of.
fn programs() -> String {
    let program = |name: &str| format!("{name}:x86_64:{}:https://releases.example.com/{name}", "ab".repeat(32));
    ["scale-lnd", "lnd"].map(program).join(",")
}
