//! `consort ledger stat`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;

use super::{Books, hexadecimal, open};

pub(super) fn run(books: &Books) -> anyhow::Result<()> {
    let ledger = open(&books.data, &books.channel)?;
    let info = ledger.info();
    let counted = ledger.statistics()?;
    let last = counted.height.checked_sub(1).map(consort_protos::ids::BlockNumber::new);
    let commit_hash = match last {
        Some(last) => ledger.commit_hash(last)?.unwrap_or_default(),
        None => bytes::Bytes::new(),
    };
    let document = json!({
        "channel": ledger.channel().as_str(),
        "height": counted.height,
        "current_block_hash": hexadecimal(&info.current_block_hash),
        "commit_hash": hexadecimal(&commit_hash),
        "config_block": counted.config_block,
        "transactions": counted.transactions,
        "public_keys": counted.public_keys,
        "hashed_keys": counted.hashed_keys,
        "private_keys": counted.private_keys,
        "missing_private": counted.missing_private,
        "bytes": counted.bytes,
    });
    books.output.print(&document, || {
        let mut text = format!(
            "channel           {}\nheight            {}\nlast block hash   {}\ncommit hash       {}\nlast config block {}\n",
            ledger.channel(),
            counted.height,
            hexadecimal(&info.current_block_hash),
            hexadecimal(&commit_hash),
            counted.config_block
        );
        section(&mut text, "transactions", &counted.transactions);
        section(&mut text, "public keys", &counted.public_keys);
        section(&mut text, "hashed private keys", &counted.hashed_keys);
        section(&mut text, "private keys held", &counted.private_keys);
        if counted.missing_private > 0 {
            let _infallible = writeln!(text, "private sets missing here: {}", counted.missing_private);
        }
        section(&mut text, "bytes on disk", &counted.bytes);
        text.trim_end().to_owned()
    })
}

fn section<K: std::fmt::Display>(text: &mut String, title: &str, counts: &BTreeMap<K, u64>) {
    if counts.is_empty() {
        return;
    }
    let _infallible = writeln!(text, "{title}:");
    for (name, count) in counts {
        let name = name.to_string();
        let name = if name.is_empty() { "(channel configuration)" } else { &name };
        let _infallible = writeln!(text, "  {name:<40} {count}");
    }
}
