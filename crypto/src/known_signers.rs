//! Fast verification for signers that are seen again and again.
//!
//! The signers of a consortium (endorsers, orderers, clients of an application) are few and known. For each of their keys a table
//! of multiples is kept, so that verifying takes additions of points only: a third of the time that a library without tables
//! needs. A key earns a small table with its [`SMALL_AFTER`]th signature and a large one with its [`LARGE_AFTER`]th; the tables
//! used longest ago make room for new ones.
//!
//! Signatures that are checked together ([`SignatureCheck`]) share their inversions: those of ECDSA's s, and those that make adding
//! points cheap ([`sums`]). The peer's committer checks a block's signatures that way, the signatures of some transactions at once.
//!
//! Public values only, in variable time: no secret may enter this module. The verdicts are those of ring (P-256) and of the
//! `sm2` crate, which tests hold it to; keys without a table, and other curves, stay with the libraries.

mod check;
mod curve;
mod field;
mod inverse;
mod remembered;
mod sums;
mod table;
mod verify;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

pub use check::SignatureCheck;
pub(crate) use check::Signed;
use curve::{Affine, Curve, P256, Sm2};
use remembered::Remembered;
use table::Table;

/// Signatures after which a small table is built: building costs as much as ten verifications.
const SMALL_AFTER: u32 = 8;

/// Signatures after which a large table replaces it; only keys that sign all the time get there.
const LARGE_AFTER: u32 = 500;

/// Window of a client's table: 33 KiB.
const SMALL_WINDOW_BITS: u32 = 4;

/// Window of the table of an endorser or orderer: 86 KiB.
const LARGE_WINDOW_BITS: u32 = 6;

/// Window of the generators' tables, of which there is one each.
const GENERATOR_WINDOW_BITS: u32 = 8;

/// Memory of all tables in bytes where a process sets none: a thousand clients beside a few hundred endorsers and orderers.
const TABLES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Sets how many bytes the tables of this process may take, half of it for each curve. With 0 there are none, and every
/// signature is verified with the libraries. Tables that exist stay until room is needed, but with 0 they are not used.
pub fn limit_signer_tables(bytes_max: usize) {
    KNOWN_SIGNERS.limit(bytes_max);
}

/// Keys that are counted without having a table; beyond it counting begins anew.
const COUNTED_KEYS_MAX: usize = 65_536;

/// The two numbers of a signature, big-endian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) r: [u8; 32],
    pub(crate) s: [u8; 32],
}

/// The tables of this process.
static KNOWN_SIGNERS: LazyLock<KnownSigners> = LazyLock::new(|| KnownSigners::new(TABLES_BYTES_MAX));

static P256_GENERATOR: LazyLock<Table<P256>> =
    LazyLock::new(|| Table::new(&Affine::generator(), GENERATOR_WINDOW_BITS));

static SM2_GENERATOR: LazyLock<Table<Sm2>> =
    LazyLock::new(|| Table::new(&Affine::generator(), GENERATOR_WINDOW_BITS));

/// Tables for public keys, bounded in memory.
#[derive(Debug)]
struct KnownSigners {
    p256: Tables<P256>,
    sm2: Tables<Sm2>,
    /// Good signatures over digests of SHA-256 by keys of P-256.
    p256_remembered: Remembered,
    /// Good signatures over digests of SM3 by keys of SM2.
    sm2_remembered: Remembered,
}

impl KnownSigners {
    fn new(bytes_max: usize) -> Self {
        Self {
            p256: Tables::new(bytes_max / 2),
            sm2: Tables::new(bytes_max / 2),
            p256_remembered: Remembered::new(),
            sm2_remembered: Remembered::new(),
        }
    }

    fn limit(&self, bytes_max: usize) {
        self.p256.bytes_max.store(bytes_max / 2, Ordering::Relaxed);
        self.sm2.bytes_max.store(bytes_max / 2, Ordering::Relaxed);
    }
}

/// What is known about a key.
#[derive(Debug)]
struct Entry<C: Curve> {
    signatures: AtomicU32,
    last_use: AtomicU64,
    window_bits: u32,
    table: Option<Arc<Table<C>>>,
}

/// The tables of one curve.
#[derive(Debug)]
struct Tables<C: Curve> {
    bytes_max: AtomicUsize,
    uses: AtomicU64,
    entries: RwLock<HashMap<Box<[u8]>, Entry<C>>>,
}

impl<C: Curve> Tables<C> {
    fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: AtomicUsize::new(bytes_max),
            uses: AtomicU64::new(0),
            entries: RwLock::new(HashMap::new()),
        }
    }

    /// Counts a signature of a key and returns its table, if the key has earned one.
    fn of(&self, point: &[u8]) -> Option<Arc<Table<C>>> {
        if self.bytes_max.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let (signatures, table) = self.count(point);
        let wanted = match signatures {
            SMALL_AFTER => SMALL_WINDOW_BITS,
            LARGE_AFTER => LARGE_WINDOW_BITS,
            _ => return table,
        };
        let built = Arc::new(Table::new(&Affine::from_bytes(point)?, wanted));
        self.keep(point, wanted, &built);
        Some(built)
    }

    fn count(&self, point: &[u8]) -> (u32, Option<Arc<Table<C>>>) {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(point) {
            entry.last_use.store(now, Ordering::Relaxed);
            let counted = entry.signatures.load(Ordering::Relaxed);
            if counted >= LARGE_AFTER {
                return (counted + 1, entry.table.clone());
            }
            return (entry.signatures.fetch_add(1, Ordering::Relaxed) + 1, entry.table.clone());
        }
        drop(entries);
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= COUNTED_KEYS_MAX {
            entries.retain(|_, entry| entry.table.is_some());
        }
        entries.entry(point.into()).or_insert_with(|| Entry {
            signatures: AtomicU32::new(1),
            last_use: AtomicU64::new(now),
            window_bits: 0,
            table: None,
        });
        (1, None)
    }

    /// Keeps a table, and drops those that were used longest ago until all fit.
    fn keep(&self, point: &[u8], window_bits: u32, table: &Arc<Table<C>>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = entries.get_mut(point) else { return };
        entry.window_bits = window_bits;
        entry.table = Some(Arc::clone(table));
        while Self::bytes(&entries) > self.bytes_max.load(Ordering::Relaxed) {
            let tables = entries.iter().filter(|(key, entry)| entry.table.is_some() && key.as_ref() != point);
            let oldest = tables.min_by_key(|(_, entry)| entry.last_use.load(Ordering::Relaxed));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            entries.remove(&oldest);
        }
    }

    fn bytes(entries: &HashMap<Box<[u8]>, Entry<C>>) -> usize {
        let tables = entries.values().filter(|entry| entry.table.is_some());
        tables.map(|entry| Table::<C>::bytes(entry.window_bits)).sum()
    }
}

#[cfg(test)]
mod comparison;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wycheproof;
