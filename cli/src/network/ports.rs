//! Whether the ports of a network are free, and who holds those that are not.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

use super::plan::ProcessPlan;

/// State of a listening socket in `/proc/net/tcp` (Linux `include/net/tcp_states.h`).
const LISTENING: &str = "0A";

/// Checks every port of the processes that are about to start.
///
/// # Errors
/// One message that names every port in use, who wants it, who holds it and the remedy.
pub(crate) fn check_free<'a>(plans: impl IntoIterator<Item = &'a ProcessPlan>) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for plan in plans {
        for (purpose, address) in &plan.listens {
            let Err(error) = TcpListener::bind(address) else { continue };
            let who = format!("{} {} ({purpose})", plan.role.name(), plan.name);
            taken.push(match error.kind() {
                ErrorKind::AddrInUse => {
                    let holder = holder(*address).map_or_else(String::new, |holder| format!(" by {holder}"));
                    format!("port {} on {} is in use{holder}; {who} needs it", address.port(), address.ip())
                }
                ErrorKind::AddrNotAvailable => {
                    format!("{} is no address of this machine; {who} should listen there", address.ip())
                }
                _ => format!("{who} cannot listen on {address}: {error}"),
            });
        }
    }
    anyhow::ensure!(
        taken.is_empty(),
        "{}.\nRemedy: end the other program (`consort network status --data <folder>` shows those of another network), or change the port in the topology. Nothing was started.",
        taken.join("\n")
    );
    Ok(())
}

/// The program that listens on an address, as far as this user may see it.
fn holder(address: SocketAddr) -> Option<String> {
    let inode = listening_inode(address.port())?;
    let target = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let held = descriptors.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|link| link.as_os_str() == target.as_str())
        });
        if held {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", program.trim()));
        }
    }
    None
}

/// The inode of the socket that listens on a port (proc(5), `/proc/net/tcp`).
fn listening_inode(port: u16) -> Option<String> {
    let hex = format!("{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            let matches = local == hex && *fields.get(3)? == LISTENING;
            matches.then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::plan::Role;
    use super::*;

    fn plan(address: SocketAddr) -> ProcessPlan {
        ProcessPlan {
            name: "peer0.org1.example.com".to_owned(),
            role: Role::Peer,
            address,
            listens: vec![("port", address)],
            operations: None,
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_its_holder_and_who_wants_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = check_free(&[plan(address)]).unwrap_err().to_string();
        assert!(error.contains(&format!("port {} on 127.0.0.1 is in use", address.port())), "{error}");
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        assert!(error.contains("peer peer0.org1.example.com (port) needs it"), "{error}");
        assert!(error.contains("Remedy"), "{error}");
        drop(listener);
        check_free(&[plan(address)]).unwrap();
    }
}
