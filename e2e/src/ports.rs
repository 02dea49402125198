//! Free ports for a copy of a topology.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::TcpListener;

use anyhow::{Context, Result};

/// Replaces every `…port: N` of a topology, or of a page that shows one, by a free port of 127.0.0.1; gives the new text and old → new.
///
/// All ports are held until the last one is known, so that one topology never gets the same port twice.
///
/// # Errors
/// When the machine has no free port left.
pub fn move_to_free_ports(topology: &str) -> Result<(String, BTreeMap<u16, u16>)> {
    let mut held = Vec::new();
    let mut moved = BTreeMap::new();
    let mut text = String::with_capacity(topology.len());
    for line in topology.split_inclusive('\n') {
        let mut rest = line;
        while let Some(at) = rest.find("port: ") {
            let (before, after) = rest.split_at(at + "port: ".len());
            let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            text.push_str(before);
            let Ok(port) = after[..digits].parse::<u16>() else {
                rest = after;
                continue;
            };
            let free = match moved.entry(port) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let listener =
                        TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
                    let free = listener.local_addr()?.port();
                    held.push(listener);
                    *unknown.insert(free)
                }
            };
            text.push_str(&free.to_string());
            rest = &after[digits..];
        }
        text.push_str(rest);
    }
    Ok((text, moved))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_moves_once_and_nothing_else_changes() {
        let (text, moved) =
            move_to_free_ports("a: { port: 7051, operations_port: 9444 }\nport: 7051 # again\nport: x\n")
                .unwrap();

        assert_eq!(moved.len(), 2);
        let (a, b) = (moved[&7051], moved[&9444]);
        assert_eq!(text, format!("a: {{ port: {a}, operations_port: {b} }}\nport: {a} # again\nport: x\n"));
    }
}
