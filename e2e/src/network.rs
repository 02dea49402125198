//! One running copy of a topology.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::ports;

/// A copy of a topology on free ports, its data in a temporary folder; stopped and forgotten when dropped.
#[derive(Debug)]
pub struct Network {
    name: String,
    folder: TempDir,
    ports: BTreeMap<u16, u16>,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether the exit status was 0.
    pub success: bool,
    /// The exit status, unless a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// The standard output of a command that had to succeed.
    ///
    /// # Errors
    /// The command failed; the error shows everything that it printed.
    pub fn expect_success(self) -> Result<String> {
        ensure!(self.success, "the command failed\n{}\n{}", self.stdout, self.stderr);
        Ok(self.stdout)
    }

    /// Everything printed by a command that had to fail.
    ///
    /// # Errors
    /// The command succeeded.
    pub fn expect_failure(self) -> Result<String> {
        ensure!(
            !self.success,
            "the command succeeded, and should not have\n{}\n{}",
            self.stdout,
            self.stderr
        );
        Ok(self.stdout + &self.stderr)
    }
}

/// The folder of this clone.
///
/// # Panics
/// Never: the manifest folder of this crate has a parent.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("invariant: this crate lies in a folder of the repository")
}

/// Runs the `consort` command that lies beside this test's executable.
///
/// # Errors
/// It is not built (`make build` does), or it cannot be started.
pub fn consort(arguments: &[&str]) -> Result<Outcome> {
    let output = Command::new(binaries()?.join("consort"))
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::null())
        .output()
        .context("cannot run consort: build the workspace first (make build)")?;
    Ok(Outcome {
        success: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The folder of the built programs: tests run from `<target>/<profile>/deps`.
fn binaries() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let deps = this.parent().context("this executable lies in no folder")?;
    Ok(deps.parent().context("the test's folder has no parent")?.to_owned())
}

impl Network {
    /// Copies a folder of `network-configs/` to free ports; nothing runs yet.
    ///
    /// # Errors
    /// There is no such topology, or no free port.
    pub fn copy(name: &str) -> Result<Self> {
        let original = repository().join("network-configs").join(name).join("network.yaml");
        let text = std::fs::read_to_string(&original)
            .with_context(|| format!("cannot read {}", original.display()))?;
        let (text, ports) = ports::move_to_free_ports(&text)?;
        let text = text.replace("path: ../../", &format!("path: {}/", repository().display()));
        let folder = TempDir::with_prefix("consort-e2e-")?;
        std::fs::create_dir(folder.path().join("config"))?;
        std::fs::write(folder.path().join("config/network.yaml"), text)?;
        Ok(Self { name: name.to_owned(), folder, ports })
    }

    /// Copies a topology and brings it up.
    ///
    /// # Errors
    /// As [`Network::copy`] and [`Network::up`].
    pub fn start(name: &str) -> Result<Self> {
        let network = Self::copy(name)?;
        network.up()?;
        Ok(network)
    }

    /// `consort network up`.
    ///
    /// # Errors
    /// The network does not come up; the error shows what the command printed.
    pub fn up(&self) -> Result<String> {
        self.command("up")?.expect_success().with_context(|| format!("{} does not come up", self.name))
    }

    /// `consort network down`.
    ///
    /// # Errors
    /// It does not stop.
    pub fn down(&self) -> Result<String> {
        self.command("down")?.expect_success()
    }

    /// `consort network <verb>` on this network.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn command(&self, verb: &str) -> Result<Outcome> {
        let (config, data) = (self.config(), self.data());
        consort(&["network", verb, "--config", &config.to_string_lossy(), "--data", &data.to_string_lossy()])
    }

    /// Any `consort` command with `--network` set to this one's data.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn consort(&self, arguments: &[&str]) -> Result<Outcome> {
        let data = self.data();
        let data = data.to_string_lossy();
        let (noun_and_verb, rest) = arguments.split_at(arguments.len().min(2));
        let mut all = noun_and_verb.to_vec();
        all.extend(["--network", &data]);
        all.extend(rest);
        consort(&all)
    }

    /// `consort <noun> <verb> … --output json` on this network, parsed.
    ///
    /// # Errors
    /// The command fails, or prints something else than one JSON document.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = arguments.to_vec();
        all.extend(["--output", "json"]);
        let text = self.consort(&all)?.expect_success()?;
        serde_json::from_str(&text).with_context(|| format!("not one JSON document: {text}"))
    }

    /// The folder of the topology.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// The folder of everything that the network writes.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where a port of the published topology is here.
    ///
    /// # Panics
    /// The topology has no such port.
    #[must_use]
    pub fn port(&self, published: u16) -> u16 {
        self.ports[&published]
    }

    /// What a node tells at its operations port, which is given as in the published topology.
    ///
    /// # Errors
    /// The node does not run.
    pub fn metrics(&self, published: u16) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port(published)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    /// The folder of a peer organisation's credentials.
    #[must_use]
    pub fn peer_organisation(&self, domain: &str) -> PathBuf {
        self.data().join("organizations/peerOrganizations").join(domain)
    }

    /// What is noted about a process of this network.
    fn record(&self, process: &str) -> Result<serde_json::Value> {
        let record = self.data().join("processes").join(format!("{process}.json"));
        let record = std::fs::read(&record).with_context(|| format!("no process {process}"))?;
        Ok(serde_json::from_slice(&record)?)
    }

    /// Starts a process of this network that does not run, as a child of the caller, who stops it.
    ///
    /// # Errors
    /// The network never had such a process, or it cannot be started.
    pub fn spawn(&self, process: &str) -> Result<Child> {
        let record = self.record(process)?;
        let words = record["command"].as_array().context("the record names no command")?;
        let words: Vec<&str> = words.iter().filter_map(serde_json::Value::as_str).collect();
        let (program, arguments) = words.split_first().context("the record's command is empty")?;
        let log = self.data().join("logs").join(format!("{process}.log"));
        let log = File::options().append(true).create(true).open(log)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("{program} cannot be started"))
    }

    /// The pid of a process of this network.
    ///
    /// # Errors
    /// The network has no running process of that name.
    pub fn pid(&self, process: &str) -> Result<u32> {
        let record = self.record(process)?;
        let pid = record["identity"]["pid"].as_u64().context("the record names no pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// `kill -9`: the process gets no chance to write anything.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&self, process: &str) -> Result<()> {
        let pid = self.pid(process)?;
        self.signal(process, "-9")?;
        while is_running(pid) {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Stops a process in its tracks (SIGSTOP): it keeps its connections and answers nothing, until [`Network::thaw`].
    ///
    /// # Errors
    /// There is no such process.
    pub fn freeze(&self, process: &str) -> Result<()> {
        self.signal(process, "-STOP")
    }

    /// Lets a process go on.
    ///
    /// # Errors
    /// There is no such process.
    pub fn thaw(&self, process: &str) -> Result<()> {
        self.signal(process, "-CONT")
    }

    fn signal(&self, process: &str, signal: &str) -> Result<()> {
        let pid = self.pid(process)?;
        let status = Command::new("kill").args([signal, &pid.to_string()]).status()?;
        ensure!(status.success(), "kill {signal} {pid} ({process}) failed");
        Ok(())
    }

    /// Resident memory of a process in bytes, and the CPU seconds that it has used.
    ///
    /// # Errors
    /// There is no such process.
    pub fn usage(&self, process: &str) -> Result<(u64, f64)> {
        let pid = self.pid(process)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .context("no VmRSS in /proc/<pid>/status")?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after_name = stat.rsplit_once(") ").context("unreadable /proc/<pid>/stat")?.1;
        // Fields 14 and 15 of proc(5): user and system time in ticks of 10 ms.
        let ticks: f64 =
            after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok((resident * 1024, ticks / 100.0))
    }
}

/// Whether a pid is a living process: a zombie has ended when none of its other threads is left, which have its files,
/// locks and ports until then (fields 3 and 20 of proc(5)'s `/proc/<pid>/stat`).
#[must_use]
pub fn is_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let Some((_, after_name)) = stat.rsplit_once(") ") else { return false };
    let mut fields = after_name.split(' ');
    let is_zombie = fields.next() == Some("Z");
    let threads: u32 = fields.nth(16).and_then(|threads| threads.parse().ok()).unwrap_or(1);
    !is_zombie || threads > 1
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.data().exists() {
            if std::thread::panicking() {
                show_logs(&self.data().join("logs"));
            }
            let _ = self.command("down");
        }
    }
}

/// What each process said last, for whoever reads a failed test.
fn show_logs(logs: &Path) {
    for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- {}\n{}", entry.path().display(), lines[lines.len().saturating_sub(30)..].join("\n"));
    }
}
