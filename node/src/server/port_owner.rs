//! Who listens at a port, as far as Linux tells (proc(5)).

use std::{fs, path::Path};

/// State LISTEN in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A text such as `process consort-peer (pid 4711)` for the process that listens at `address`' port.
pub(super) fn of(address: &str) -> Option<String> {
    let port: u16 = address.rsplit(':').next()?.parse().ok()?;
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, port))?;
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        if !holds(&entry.path(), &socket) {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(format!("process {} (pid {pid})", name.trim()))
    })
}

fn holds(process: &Path, socket: &str) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket))
}

/// Columns: slot, local address (hex:hex), remote address, state, queues, timer, retransmits, uid, timeout, inode.
fn listening_inode(table: &str, port: u16) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let local = columns.get(1)?.rsplit(':').next()?;
        let listens = *columns.get(3)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
        listens.then(|| columns.get(9).map(|inode| (*inode).to_owned())).flatten()
    })
}
