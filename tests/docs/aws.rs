//! docs/aws.md: the commands that make a deployment with the templates, typed into a shell one after the other, with AWS's own
//! command line, on moto.

use crate::ec2::moto::{Moto, python};
use crate::ec2::stacks;
use crate::harness::{self, command};
use std::time::Duration;

const PAGE: &str = include_str!("../../docs/aws.md");
/// No other test's: none of those in `ec2::moto`.
const REGION: &str = "il-central-1";
/// What the reader has, and a command line that makes up for what moto lacks: a stack that is made by a change set has no
/// outputs there. So the change set is made, and then a stack with its parameters.
const READERS: &str = r#"
set -euo pipefail
aws() {
    [ "$1 ${2:-}" = "cloudformation deploy" ] || { "$PYTHON" -m awscli "$@"; return; }
    [ "$3 $5" = "--stack-name --template-file" ]
    "$PYTHON" -m awscli "${@:1:3}" "set-of-$4" "${@:5}" --no-execute-changeset >said
    aws cloudformation describe-change-set --change-set-name "$(grep --only-matching --extended-regexp 'arn:[^ ]+' said)" \
        --query Parameters --output json >parameters.json
    aws cloudformation create-stack --stack-name "$4" --template-body "file://$6" --capabilities CAPABILITY_IAM \
        --parameters file://parameters.json >created
    [ "$(aws cloudformation describe-stacks --stack-name "$4" --query 'Stacks[0].StackStatus' --output text)" = CREATE_COMPLETE ]
    echo "made $4"
}
sha256=$(printf '0%.0s' {1..64}) btcd_sha256=$(printf '1%.0s' {1..64})
program=https://downloads.example/scale-lnd.tar.gz btcd=https://downloads.example/btcd
hosts=scale-lnd:arm64:$sha256:$program,lnd:arm64:$sha256:https://downloads.example/lnd.tar.gz
certificate=$(aws acm request-certificate --domain-name api.example.com --query CertificateArn --output text)
echo btcd >btcd.conf
for name in master.toml seal.key firestore.json rpc-password treasury.cert treasury.macaroon; do echo "the $name" >"$name"; done
"#;

/// The indented lines of the section on the templates, in blocks, without what the reader has to fill in and what another
/// test does.
fn commands() -> Vec<String> {
    let section = PAGE.split("\n## With the templates\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut blocks = vec![String::new()];
    for line in section.lines() {
        match line.strip_prefix("    ") {
            Some(code) => *blocks.last_mut().unwrap() += &format!("{code}\n"),
            None => blocks.push(String::new()),
        }
    }
    // What belongs into a file is read in `ec2::templates`.
    blocks.retain(|block| !block.is_empty() && !block.starts_with('[') && !block.contains("scale-lnd demo --at"));
    blocks.retain(|block| {
        let is_left_open = block.contains('…');
        assert!(!is_left_open || block.split_whitespace().all(|word| word.contains('=')), "{block}");
        !is_left_open
    });
    blocks
}

#[test]
fn the_commands_of_the_page_make_a_deployment_of_the_templates() {
    harness::run(Duration::from_secs(240), async {
        let dir = tempfile::tempdir().unwrap();
        let templates = dir.path().join("deploy/cloudformation");
        std::fs::create_dir_all(&templates).unwrap();
        for name in ["network", "lndserver", "chain", "masterlnd"] {
            std::fs::write(templates.join(format!("{name}.yaml")), stacks::template(name)).unwrap();
        }
        let mut commands = commands();
        assert_eq!(commands.len(), 4, "{commands:#?}");
        // Of what comes later moto knows this.
        let change = PAGE.lines().find(|line| line.starts_with("    aws secretsmanager put-secret-value")).unwrap();
        commands.push(format!("{change} >changed\n"));
        let script = dir.path().join("script");
        std::fs::write(&script, format!("cd {}\n{READERS}\n{}", dir.path().display(), commands.concat())).unwrap();

        let python = python().await;
        let url = &Moto::shared().await.url;
        let env = [
            ("PYTHON", python.to_str()),
            ("AWS_ENDPOINT_URL", Some(url)),
            ("AWS_DEFAULT_REGION", Some(REGION)),
            ("AWS_ACCESS_KEY_ID", Some("test")),
            ("AWS_SECRET_ACCESS_KEY", Some("test")),
            ("AWS_CONFIG_FILE", Some("/nonexistent")),
            ("AWS_SHARED_CREDENTIALS_FILE", Some("/nonexistent")),
            ("AWS_PROFILE", None),
            ("AWS_PAGER", Some("")),
        ];
        let done = command::run(&["bash", script.to_str().unwrap()], &env).await;
        assert_eq!(done.code, Some(0), "{}\n{}", done.out, done.err);
        for stack in ["network", "lndserver", "chain", "masterlnd"] {
            assert!(done.out.contains(&format!("made example-{stack}\n")), "{stack}: {}\n{}", done.out, done.err);
        }
        // What the page says to look at in the end.
        let outputs = done.out.lines().last().unwrap();
        assert!(outputs.contains("Api=") && outputs.contains("Agents="), "{}", done.out);
        let files = std::fs::read_to_string(dir.path().join("masters.json")).unwrap();
        let files: serde_json::Value = serde_json::from_str(&files).unwrap();
        assert_eq!(files["seal.key"], "the seal.key\n");
        assert_eq!(files["treasury.macaroon.base64"], "dGhlIHRyZWFzdXJ5Lm1hY2Fyb29uCg==");
    });
}
