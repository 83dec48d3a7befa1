//! `scale-lnd release`: what the hosts run, as a signed manifest. None of these verbs but `apply` needs a deployment: they are
//! typed where the release key is, which is best no master.

use super::admin::{self, Admin};
use super::{ConfigArgs, Failure, Output};
use crate::app::updates::{self, Believed, Found};
use crate::config::SecretSource;
use crate::files;
use crate::model::release::Release;
use crate::release::download::{Bounds, download};
use crate::release::signature::SUFFIX;
use crate::release::signing::{self, Protection};
use crate::release::{Manifest, TrustedKey, TrustedKeys, manifest};
use clap::Subcommand;
use secrecy::ExposeSecret;
use serde_json::json;
use std::path::{Path, PathBuf};
use time::format_description::well_known::Rfc3339;

/// Verbs about releases.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Make a key to sign releases with: PATH, which only its owner can read, and PATH.pub, which masters and hosts trust
    Keygen {
        /// The file of the secret key, which must not exist
        path: PathBuf,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Sign a manifest, if it makes sense: writes MANIFEST.minisig
    Sign {
        /// The manifest
        manifest: PathBuf,
        /// The file of the secret key
        #[arg(long, value_name = "PATH")]
        key: PathBuf,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Say whether a manifest is signed by a key that is trusted, and what it says
    Verify {
        /// The manifest; its signature is MANIFEST.minisig
        manifest: PathBuf,
        /// A public key (RW…), or a file of one (again and again)
        #[arg(long, value_name = "KEY", required = true)]
        trust: Vec<String>,
    },
    /// Want a release from now on, as if it had been found in the watched repository; its signature is MANIFEST.minisig
    Apply {
        /// The manifest
        manifest: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Say whether a manifest makes sense, signed or not, and whether its artifacts are what it says
    Check {
        /// The manifest
        manifest: PathBuf,
        /// Load none of its artifacts
        #[arg(long)]
        offline: bool,
    },
}

/// How the secret key is protected. Otherwise its password is asked for.
#[derive(Debug, clap::Args)]
pub struct PasswordArgs {
    /// A file with the password of the secret key
    #[arg(long, value_name = "PATH")]
    password_file: Option<PathBuf>,
    /// The secret key has no password
    #[arg(long, conflicts_with = "password_file")]
    no_password: bool,
}

impl PasswordArgs {
    fn protection(self) -> Result<Protection, Failure> {
        match self.password_file {
            _ if self.no_password => Ok(Protection::None),
            Some(path) => Ok(Protection::Password(SecretSource::File(path).text().map_err(Failure::Failed)?)),
            None => Ok(Protection::Asked),
        }
    }
}

/// Runs the verb.
pub async fn run(command: ReleaseCommand) -> Result<(), Failure> {
    match command {
        ReleaseCommand::Keygen { path, password } => keygen(&path, &password.protection()?),
        ReleaseCommand::Sign { manifest, key, password } => sign(&manifest, key, &password.protection()?),
        ReleaseCommand::Verify { manifest, trust } => verify(&manifest, &trust),
        ReleaseCommand::Apply { manifest, config } => apply(&manifest, &config).await,
        ReleaseCommand::Check { manifest, offline } => check(&manifest, offline).await,
    }
}

/// `path` with more at its end.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn keygen(path: &Path, protection: &Protection) -> Result<(), Failure> {
    let public = beside(path, ".pub");
    for path in [path, &public] {
        if path.exists() {
            return Err(Failure::Failed(format!("{} exists already", path.display())));
        }
    }
    let key = signing::generate(protection)?;
    let cannot =
        |path: &Path, error: std::io::Error| Failure::Failed(format!("cannot write {}: {error}", path.display()));
    files::write_private(path, key.secret.expose_secret().as_bytes()).map_err(|error| cannot(path, error))?;
    std::fs::write(&public, &key.public).map_err(|error| cannot(&public, error))?;
    let (secret, public) = (path.display(), public.display());
    println!("key {} is made: {secret} signs, {public} is for those who trust it", key.key.id());
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::Failed(format!("cannot read {}: {error}", path.display())))
}

fn parsed(path: &Path, text: &[u8]) -> Result<Release, Failure> {
    let parsed = manifest::parse(text);
    parsed.map(|(_, release)| release).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

fn sign(path: &Path, key: PathBuf, protection: &Protection) -> Result<(), Failure> {
    let text = read(path)?;
    let release = parsed(path, &text)?;
    let secret = SecretSource::File(key).text().map_err(Failure::Failed)?;
    let comment = format!("{} on {}, serial {}", release.deployment, release.network, release.serial);
    let (signature, key) = signing::sign(&text, &secret, protection, &comment)?;
    let to = beside(path, SUFFIX);
    std::fs::write(&to, signature)
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", to.display())))?;
    println!("{} is the signature of {comment}, with the key {}", to.display(), key.id());
    Ok(())
}

fn trusted(given: &[String]) -> Result<TrustedKeys, Failure> {
    let key = |given: &String| -> Result<TrustedKey, Failure> {
        let fault = |reason| Failure::usage(format!("--trust {given}: {reason}"));
        match given.parse() {
            Ok(key) => Ok(key),
            Err(reason) if given.starts_with("RW") && !Path::new(given).exists() => Err(fault(reason)),
            Err(_) => String::from_utf8_lossy(&read(Path::new(given))?).parse().map_err(fault),
        }
    };
    Ok(TrustedKeys::new(given.iter().map(key).collect::<Result<_, _>>()?))
}

fn verify(path: &Path, trust: &[String]) -> Result<(), Failure> {
    let (text, signature) = (read(path)?, read(&beside(path, SUFFIX))?);
    let signature = String::from_utf8_lossy(&signature);
    let manifest = Manifest::verify(&text, &signature, &trusted(trust)?);
    let manifest = manifest.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    println!("signed with the key {}", manifest.signed_by);
    say(&manifest.release);
    Ok(())
}

fn say(release: &Release) {
    let expires = release.expires_at.format(&Rfc3339).unwrap_or_default();
    println!("release {} for {} on {}, until {expires}", release.serial, release.deployment, release.network);
    let mut output = Output::new(&["program", "version", "update_from", "revert_to", "artifacts"]);
    for (name, program) in release.programs() {
        let arches: Vec<&str> = program.artifacts.keys().map(|arch| arch.name()).collect();
        let row = [json!(name.file()), json!(program.version), json!(program.update_from)];
        output.row(row.into_iter().chain([json!(program.revert_to), json!(arches)]));
    }
    output.print(false);
}

async fn apply(path: &Path, config: &ConfigArgs) -> Result<(), Failure> {
    let (text, signature) = (read(path)?, read(&beside(path, SUFFIX))?);
    let signature = String::from_utf8_lossy(&signature);
    let Admin { config, store, .. } = admin::open(config).await?;
    let Some(section) = &config.updates else {
        return Err(Failure::usage("the configuration has no [updates], so nobody's releases are believed"));
    };
    let (name, network) = (config.deployment.name.as_str(), config.deployment.network);
    let believed = Believed { trusted: &TrustedKeys::new(section.trusted_keys.clone()), deployment: name, network };
    loop {
        let found = updates::want(&*store, believed, (&text, &signature), None, admin::now()).await;
        let (manifest, found) = found.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        let serial = manifest.release.serial;
        match found {
            Found::Wanted => {
                println!("release {serial} is the wanted one already");
                return Ok(());
            }
            Found::Newer(writes) => match store.commit(writes).await {
                Ok(_) => {
                    println!("release {serial} is wanted from now on");
                    return Ok(());
                }
                // Another release came in between.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
}

async fn check(path: &Path, offline: bool) -> Result<(), Failure> {
    let text = read(path)?;
    let release = parsed(path, &text)?;
    say(&release);
    if offline {
        return Ok(());
    }
    let client = reqwest::Client::builder().build()?;
    let mut faults = Vec::new();
    for (name, program) in release.programs() {
        for (arch, artifact) in &program.artifacts {
            let which = format!("{} for {}", name.file(), arch.name());
            match download(&client, artifact, Bounds::PROGRAM, &mut tokio::io::sink()).await {
                Ok(bytes) => println!("{which}: {bytes} bytes, as the manifest says"),
                Err(error) => faults.push(format!("{which}: {}: {}", artifact.url.as_str(), super::in_a_line(&error))),
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Failure::Failed(faults.join("; "))) }
}
