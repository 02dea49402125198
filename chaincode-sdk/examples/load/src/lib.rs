//! The chaincode of load runs: the smallest functions that read and write in the ways that cost differently.
//!
//! `consort load` calls them. The same functions written for another platform make its figures comparable.

#![expect(clippy::needless_pass_by_value, reason = "a contract function owns its parameters")]

use consort_chaincode_sdk::{Context, Error, Functions};

/// Most keys that one call of `Fill` or `Open` writes; a block must hold the transaction.
const FILL_MAX: u32 = 1_000;

/// The contract, with the names that `consort load` calls.
#[must_use]
pub fn contract() -> Functions<'static> {
    Functions::new()
        .function("Put", put)
        .function("Create", create)
        .function("Update", update)
        .function("Fill", fill)
        .function("Open", open)
        .function("Transfer", transfer)
        .function("Get", get)
        .function("Range", range)
        .function("PutPrivate", put_private)
        .function("GetPrivate", get_private)
        .function("HashPrivate", hash_private)
        .function("RangePrivate", range_private)
        .function("PurgePrivate", purge_private)
}

consort_chaincode_sdk::export!(contract);

/// Writes a key without reading it.
fn put(context: &Context<'_>, key: String, value: String) -> Result<(), Error> {
    context.put(&key, value.as_bytes())
}

/// Writes a key that must not exist.
fn create(context: &Context<'_>, key: String, value: String) -> Result<(), Error> {
    if context.exists(&key)? {
        return Err(Error::new(format!("key {key} exists")));
    }
    context.put(&key, value.as_bytes())
}

/// Reads a key that must exist and writes it.
fn update(context: &Context<'_>, key: String, value: String) -> Result<(), Error> {
    if !context.exists(&key)? {
        return Err(missing(&key));
    }
    context.put(&key, value.as_bytes())
}

/// Writes the keys that `Update`, `Get` and `Range` read: `count` of them from number `first`, `size` bytes each.
fn fill(context: &Context<'_>, first: u32, count: u32, size: u32) -> Result<(), Error> {
    let value = vec![b'x'; usize::try_from(size).unwrap_or(usize::MAX)];
    for number in numbers(first, count)? {
        context.put(&format!("key{number:010}"), &value)?;
    }
    Ok(())
}

/// Opens `count` accounts from number `first`, each with the same balance.
fn open(context: &Context<'_>, first: u32, count: u32, balance: u64) -> Result<(), Error> {
    for number in numbers(first, count)? {
        context.put(&format!("account{number:010}"), balance.to_string().as_bytes())?;
    }
    Ok(())
}

/// Moves an amount from one account to another.
fn transfer(context: &Context<'_>, from: String, to: String, amount: u64) -> Result<(), Error> {
    if from == to {
        return Err(Error::new("an account cannot pay itself"));
    }
    let (paying, paid) = (balance(context, &from)?, balance(context, &to)?);
    let rest = paying
        .checked_sub(amount)
        .ok_or_else(|| Error::new(format!("account {from} holds {paying}, less than {amount}")))?;
    let sum = paid.checked_add(amount).ok_or_else(|| Error::new(format!("account {to} is full")))?;
    context.put(&from, rest.to_string().as_bytes())?;
    context.put(&to, sum.to_string().as_bytes())
}

fn get(context: &Context<'_>, key: String) -> Result<Vec<u8>, Error> {
    context.get(&key)?.ok_or_else(|| missing(&key))
}

/// Reads the keys from `start` up to `end`, without it, and returns how many bytes they hold.
fn range(context: &Context<'_>, start: String, end: String) -> Result<String, Error> {
    let mut bytes = 0;
    for pair in context.range(&start, &end)? {
        bytes += pair?.value.len();
    }
    Ok(bytes.to_string())
}

/// Writes the transient value `value` to a key of a private data collection.
fn put_private(context: &Context<'_>, collection: String, key: String) -> Result<(), Error> {
    let value = context.transient("value").ok_or_else(|| Error::new("the transient map lacks 'value'"))?;
    context.private(&collection).put(&key, &value)
}

/// Reads a key of a private data collection, on a peer that holds it.
fn get_private(context: &Context<'_>, collection: String, key: String) -> Result<Vec<u8>, Error> {
    context.private(&collection).get(&key)?.ok_or_else(|| missing(&key))
}

/// The hash of a private value in hexadecimal, which every peer has.
fn hash_private(context: &Context<'_>, collection: String, key: String) -> Result<String, Error> {
    let hash = context.private(&collection).hash(&key)?.ok_or_else(|| missing(&key))?;
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The private pairs from `start` up to, not including, `end`, one `key=value` a line, on a peer that holds them.
fn range_private(
    context: &Context<'_>,
    collection: String,
    start: String,
    end: String,
) -> Result<String, Error> {
    let mut lines = String::new();
    for pair in context.private(&collection).range(&start, &end)? {
        let pair = pair?;
        lines.push_str(&format!("{}={}\n", pair.key, String::from_utf8_lossy(&pair.value)));
    }
    Ok(lines)
}

/// Forgets a private key with every earlier value of it, on every peer.
fn purge_private(context: &Context<'_>, collection: String, key: String) -> Result<(), Error> {
    context.private(&collection).purge(&key)
}

fn numbers(first: u32, count: u32) -> Result<std::ops::Range<u32>, Error> {
    if count > FILL_MAX {
        return Err(Error::new(format!("at most {FILL_MAX} keys in one transaction, not {count}")));
    }
    let end = first.checked_add(count).ok_or_else(|| Error::new("the last number is too large"))?;
    Ok(first..end)
}

fn balance(context: &Context<'_>, account: &str) -> Result<u64, Error> {
    let value = context.get(account)?.ok_or_else(|| missing(account))?;
    let text = String::from_utf8_lossy(&value);
    text.parse().map_err(|_| Error::new(format!("{account} is no account")))
}

fn missing(key: &str) -> Error {
    Error::new(format!("key {key} does not exist"))
}

#[cfg(test)]
mod tests {
    use consort_chaincode_sdk::testing::MemoryLedger;

    use super::*;

    #[test]
    fn a_transfer_moves_the_amount_and_never_more_than_there_is() {
        let (contract, mut ledger) = (contract(), MemoryLedger::new());
        ledger.submit(&contract, "Open", &["0", "2", "10"]).unwrap();
        let pay = |ledger: &mut MemoryLedger, amount| {
            ledger.submit(&contract, "Transfer", &["account0000000000", "account0000000001", amount])
        };
        pay(&mut ledger, "4").unwrap();
        assert!(pay(&mut ledger, "7").is_err());
        assert_eq!(ledger.value("account0000000000"), Some(&b"6"[..]));
        assert_eq!(ledger.value("account0000000001"), Some(&b"14"[..]));
    }

    #[test]
    fn a_filled_range_is_read_back() {
        let (contract, mut ledger) = (contract(), MemoryLedger::new());
        ledger.submit(&contract, "Fill", &["0", "20", "3"]).unwrap();
        let read = ledger.evaluate(&contract, "Range", &["key0000000005", "key0000000010"]);
        assert_eq!(read.unwrap(), b"15");
        assert!(ledger.submit(&contract, "Fill", &["0", "1001", "3"]).is_err());
    }
}
