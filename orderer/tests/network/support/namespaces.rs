//! Orderers on machines of their own, as far as the network goes: each in a network namespace, with a cable to a switch that joins them and another
//! one to the test. Pulling the first leaves everything without an answer, as in a real network: no connection is told that it broke.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

/// What the names of all namespaces of these tests begin with; the id of the test's process follows.
const PREFIX: &str = "consort-";

/// Namespaces that end with the test.
pub(crate) struct Namespaces {
    count: usize,
    /// The third part of all addresses.
    subnet: u8,
}

impl Namespaces {
    /// Makes so many namespaces, joined by a switch; the reason when the machine does not allow it.
    ///
    /// Their addresses are of the range that is set apart for tests of networks (RFC 2544, section C.2.2).
    pub(crate) fn new(count: usize) -> Result<Self, String> {
        remove_leftovers()?;
        let used = ip("-o -4 address show")?;
        let is_free = |subnet: &u8| !used.contains(&format!(" 198.18.{subnet}."));
        let first = u8::try_from(std::process::id() % 250).unwrap();
        let subnet = (first..250).chain(0..first).find(is_free).ok_or("all test networks are in use")?;
        let namespaces = Self { count, subnet };
        namespaces.build()?;
        Ok(namespaces)
    }

    fn build(&self) -> Result<(), String> {
        let switch = self.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add switch type bridge"))?;
        ip(&format!("-n {switch} link set switch up"))?;
        for index in 0..self.count {
            let (own, cable) = (self.name(index), self.cable(index));
            ip(&format!("netns add {own}"))?;
            ip(&format!("-n {own} link set lo up"))?;
            ip(&format!("-n {own} link add among type veth peer name port{index} netns {switch}"))?;
            ip(&format!("-n {switch} link set port{index} master switch up"))?;
            ip(&format!("-n {own} address add {}/24 dev among", self.address_among(index)))?;
            ip(&format!("-n {own} link set among up"))?;
            ip(&format!("link add {cable} type veth peer name test netns {own}"))?;
            ip(&format!("address add {}/30 dev {cable}", self.client_address(index, 1)))?;
            ip(&format!("link set {cable} up"))?;
            ip(&format!("-n {own} address add {}/30 dev test", self.address(index)))?;
            ip(&format!("-n {own} link set test up"))?;
        }
        Ok(())
    }

    fn name(&self, index: usize) -> String {
        format!("{PREFIX}{}-{index}", std::process::id())
    }

    fn switch(&self) -> String {
        format!("{PREFIX}{}-switch", std::process::id())
    }

    /// The test's end of its cable to an orderer. Names of interfaces have at most fifteen letters.
    fn cable(&self, index: usize) -> String {
        format!("cst{}n{index}", std::process::id())
    }

    /// Where the test reaches an orderer, cut off or not.
    pub(super) fn address(&self, index: usize) -> Ipv4Addr {
        self.client_address(index, 2)
    }

    fn client_address(&self, index: usize, end: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.subnet, u8::try_from(4 * index).unwrap() + end)
    }

    /// Where the other orderers reach it.
    pub(super) fn address_among(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(198, 19, self.subnet, u8::try_from(index).unwrap() + 1)
    }

    /// A program in the namespace of an orderer.
    pub(super) fn command(&self, index: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(index), program]);
        command
    }

    /// Cuts an orderer off the others, or connects it again.
    pub(super) fn cut(&self, index: usize, is_cut: bool) {
        let state = if is_cut { "down" } else { "up" };
        ip(&format!("-n {} link set port{index} {state}", self.switch())).unwrap();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // Also after a failure half-way: what was not made cannot be removed.
        for index in 0..self.count {
            let _gone = ip(&format!("link del {}", self.cable(index)));
            let _gone = ip(&format!("netns del {}", self.name(index)));
        }
        let _gone = ip(&format!("netns del {}", self.switch()));
    }
}

/// Runs the command of iproute2; what it prints, or why it failed.
fn ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip").args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("the command ip (package iproute2): {error}"))?;
    if !output.status.success() {
        return Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes namespaces of tests that were killed, with the orderers in them.
fn remove_leftovers() -> Result<(), String> {
    let listed = ip("netns list")?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let leftovers = names.filter(|name| {
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(id, _)| id);
        id.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists())
    });
    let leftovers: BTreeSet<&str> = leftovers.collect();
    for name in leftovers {
        for id in ip(&format!("netns pids {name}"))?.split_whitespace() {
            let _gone = Command::new("kill").args(["-9", id]).status();
        }
        // Two tests may remove it at once.
        let _gone = ip(&format!("netns del {name}"));
    }
    Ok(())
}
