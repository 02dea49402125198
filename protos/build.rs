//! Compiles every schema below `schemas/`, without a system `protoc`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Messages whose fields hold secrets or private data; `src/secrets.rs` gives them a `Debug` that hides these.
const HIDDEN_IN_DEBUG: [&str; 5] = [
    "consort.privatedata.Found",
    "consort.privatedata.Signed",
    "msp.KeyInfo",
    "protos.ChaincodeProposalPayload",
    "rwset.CollectionPvtReadWriteSet",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=schemas");

    let root = Path::new("schemas");
    let mut schemas = Vec::new();
    collect(root, &mut schemas)?;
    schemas.sort();

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true).include_source_info(true).open_files(schemas)?;
    let descriptors = Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        .skip_debug(HIDDEN_IN_DEBUG)
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Adds every `.proto` file below `folder`.
fn collect(folder: &Path, schemas: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, schemas)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            schemas.push(path);
        }
    }
    Ok(())
}
