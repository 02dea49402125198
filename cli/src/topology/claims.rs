//! What may exist only once in a network: names, hosts, ports. The second claim is a fault that names the first.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::faults::Faults;

/// Who claimed something, and where.
#[derive(Debug, Clone)]
struct Claim {
    owner: String,
    line: usize,
}

/// All claims made so far.
#[derive(Debug, Default)]
pub(super) struct Claims {
    names: BTreeMap<(&'static str, String), Claim>,
    ports: Vec<(String, u16, Claim)>,
}

impl Claims {
    /// Claims a name of a kind (`"host"`, `"MSP id"`) for an owner.
    pub(super) fn name(
        &mut self,
        kind: &'static str,
        name: &str,
        owner: &str,
        line: usize,
        faults: &mut Faults,
    ) {
        let claim = Claim { owner: owner.to_owned(), line };
        if let Some(first) = self.names.get(&(kind, name.to_owned())) {
            let message =
                format!("{owner}: {kind} '{name}' is already that of {} (line {})", first.owner, first.line);
            faults.error(line, message);
            return;
        }
        self.names.insert((kind, name.to_owned()), claim);
    }

    /// Claims a port on a host; ports are compared once all hosts' addresses are known.
    pub(super) fn port(&mut self, host: &str, port: u16, owner: String, line: usize) {
        self.ports.push((host.to_owned(), port, Claim { owner, line }));
    }

    /// Compares the ports of all hosts that share an address.
    pub(super) fn check_ports(&self, address: impl Fn(&str) -> IpAddr, faults: &mut Faults) {
        let mut taken: BTreeMap<(IpAddr, u16), &Claim> = BTreeMap::new();
        for (host, port, claim) in &self.ports {
            let address = address(host);
            match taken.get(&(address, *port)) {
                Some(first) => {
                    let (owner, other, line) = (&claim.owner, &first.owner, first.line);
                    let message =
                        format!("{owner}: port {port} on {address} is already that of {other} (line {line})");
                    faults.error(claim.line, message);
                }
                None => {
                    taken.insert((address, *port), claim);
                }
            }
        }
    }
}
