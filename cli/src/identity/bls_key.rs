//! A BLS key without an authority: made, kept, and to be registered on a channel.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use consort_crypto::bls::SecretKey;
use serde_json::json;

use crate::credentials;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct BlsKeyOptions {
    /// MSP folder that gets the key
    #[arg(long, value_name = "FOLDER")]
    msp: PathBuf,

    #[command(flatten)]
    output: Output,
}

/// Runs `consort identity bls-key`.
///
/// # Errors
/// There is no such folder, or it cannot be written.
pub(crate) fn make(options: &BlsKeyOptions) -> anyhow::Result<()> {
    ensure!(
        options.msp.join("signcerts").is_dir(),
        "{} is no MSP folder of an identity: it has no signcerts.\nRemedy: enrol first, with `consort identity enroll`",
        options.msp.display()
    );
    let key = SecretKey::generate()?;
    let file = credentials::write_bls_key(&options.msp, &key)?;
    let public_key = hex::encode(key.public_key().as_bytes());
    options.output.print(&json!({ "written": file, "public_key": public_key }), || {
        format!(
            "a BLS key is in {}; register it with\n  consort channel identities register {} --bls-key {}",
            file.display(),
            options.msp.display(),
            file.display()
        )
    })
}
