//! The built benchmark programs of a work tree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One program, and the folder that it expects to run in.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) executable: PathBuf,
    pub(crate) folder: PathBuf,
}

/// Programs by the name of their benchmark.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    by_name: BTreeMap<String, Program>,
}

impl Programs {
    /// Builds these benchmarks of a work tree, and the servers and tools that they start.
    ///
    /// # Errors
    /// Something does not compile, or has no such benchmark.
    pub(crate) fn build(tree: &Path, names: &[&str]) -> Result<Self> {
        let bins = ["build", "--workspace", "--bins", "--profile", "dev", "--locked"];
        let built =
            Command::new("cargo").args(bins).current_dir(tree).status().context("cannot run cargo")?;
        ensure!(built.success(), "the programs of {} do not compile", tree.display());
        let mut command = Command::new("cargo");
        command.args(["bench", "--workspace", "--profile", "dev", "--locked", "--no-run"]);
        command.arg("--message-format=json-render-diagnostics");
        for name in names {
            command.args(["--bench", name]);
        }
        let output = command.current_dir(tree).stderr(Stdio::inherit()).output()?;
        ensure!(
            output.status.success(),
            "the benchmarks of {} do not compile, or one of these is not there yet: {}",
            tree.display(),
            names.join(", ")
        );
        Ok(Self {
            by_name: String::from_utf8_lossy(&output.stdout).lines().filter_map(built_program).collect(),
        })
    }

    /// The program of a benchmark.
    ///
    /// # Errors
    /// It was not among those that were built.
    pub(crate) fn of(&self, name: &str) -> Result<&Program> {
        self.by_name.get(name).with_context(|| format!("cargo built no benchmark named {name}"))
    }
}

/// The benchmark that a line of cargo's messages says is built (the Cargo book, "External tools").
fn built_program(line: &str) -> Option<(String, Program)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_benchmark = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "bench");
    let executable = PathBuf::from(message["executable"].as_str()?);
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
    is_benchmark
        .then(|| Some((message["target"]["name"].as_str()?.to_owned(), Program { executable, folder })))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_messages_name_the_programs_of_benchmarks_and_nothing_else() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/a/msp/Cargo.toml","target":{"kind":["bench"],"name":"policy"},"executable":"/t/policy-1"}"#;
        let (name, program) = built_program(line).unwrap();
        assert_eq!((name.as_str(), program.executable.to_str()), ("policy", Some("/t/policy-1")));
        assert_eq!(program.folder.to_str(), Some("/a/msp"));
        assert!(built_program(&line.replace(r#"["bench"]"#, r#"["bin"]"#)).is_none());
        assert!(built_program(&line.replace(r#""/t/policy-1""#, "null")).is_none());
    }
}
