//! The published Node packages that judge a network.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::repository;

/// Fetches the published packages once; the lock file decides which. Tests run as processes side by side, and one at a time
/// may fetch.
///
/// # Errors
/// npm is missing, or cannot fetch them.
pub fn node_client() -> Result<PathBuf> {
    let folder = repository().join("e2e/node");
    let held = File::open(folder.join("package.json"))?;
    held.lock()?;
    let installed = folder.join("node_modules/.package-lock.json");
    let is_current = |installed: &Path| -> Option<bool> {
        let lock = folder.join("package-lock.json").metadata().ok()?.modified().ok()?;
        Some(installed.metadata().ok()?.modified().ok()? >= lock)
    };
    if is_current(&installed) != Some(true) {
        let output = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&folder)
            .output()
            .context("npm is missing: .ci/setup test installs it")?;
        ensure!(output.status.success(), "npm ci failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder)
}
