//! Compiles the wire formats without protoc: lnd's (clients only, with serializers that give lnd's own REST JSON) and,
//! where it exists, our own for the host agent (clients and servers).
//!
//! What lands in OUT_DIR: `<package>.rs` for each package, `<package>.json.rs` with the serializers, and
//! `lnd.descriptor.bin`, the descriptor set that the API's description is made from.

#[path = "build/json.rs"]
mod json;
#[path = "build/names.rs"]
mod names;
#[path = "build/redact.rs"]
mod redact;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost_types::FileDescriptorSet;

/// The roots of lnd's part; what they import comes along.
const LND: &[&str] = &[
    "lnrpc/lightning.proto",
    "lnrpc/state.proto",
    "lnrpc/walletunlocker.proto",
    "routerrpc/router.proto",
    "walletrpc/walletkit.proto",
];

/// Where the protocol between master and host agent lies. Every `.proto` in it is compiled.
const AGENT: &str = "scalelnd/lndserver/v1";

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed=proto");
    // Not for the sake of this program: sqlx::migrate! does not see by itself that a file was added.
    println!("cargo:rerun-if-changed=migrations");
    lnd(&root, &out)?;
    agent(&root)
}

fn lnd(root: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let set = compile(LND, root)?;
    fs::write(out.join("lnd.descriptor.bin"), protox::prost::Message::encode_to_vec(&set))?;
    let quiet = redact::lnd();
    for (package, code) in json::generate(&set, redact::LND_SECRET) {
        let code = code + &redact::debug_impls(&package, &quiet);
        fs::write(out.join(format!("{package}.json.rs")), code)?;
    }
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        // Sorted by key, as lnd's JSON is.
        .btree_map(".")
        .skip_debug(quiet.iter().map(|name| format!(".{name}")))
        // skip_debug takes what is nested along.
        .enum_attribute(".lnrpc.Invoice.InvoiceState", "#[derive(Debug)]")
        .compile_fds(set)?;
    Ok(())
}

fn agent(root: &Path) -> Result<(), Box<dyn Error>> {
    let folder = root.join(AGENT);
    if !folder.is_dir() {
        return Ok(());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".proto") {
            files.push(format!("{AGENT}/{name}"));
        }
    }
    files.sort();
    let set = compile(&files, root)?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    fs::write(
        out.join("scalelnd.lndserver.v1.redact.rs"),
        redact::debug_impls("scalelnd.lndserver.v1", redact::AGENT),
    )?;
    tonic_prost_build::configure()
        .build_transport(false)
        .skip_debug(redact::AGENT.iter().map(|name| format!(".{name}")))
        .compile_fds(set)?;
    Ok(())
}

fn compile(files: &[impl AsRef<Path>], root: &Path) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        compiler.open_file(file)?;
    }
    Ok(compiler.file_descriptor_set())
}
