//! What the clients of a load run call.

use bytes::Bytes;
use clap::ValueEnum;
use consort_client_sdk::{Call, Contract};
use futures::{StreamExt, TryStreamExt, stream};
use rand::RngExt;
use rand::distr::Distribution;
use rand::rngs::SmallRng;
use rand_distr::Zipf;

/// Keys that one preparing transaction writes; small enough for one block, large enough to be quick.
const FILL_KEYS: u32 = 200;

/// Preparing transactions in flight.
const FILL_IN_FLIGHT: usize = 16;

/// What an account holds at first; large enough that no run empties it.
const BALANCE: u64 = 1_000_000_000;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Write a new key without reading (blind write)
    Put,
    /// Create a new key of --size bytes after checking that it does not exist
    Create,
    /// Read a key and write it back, over --keys keys
    Update,
    /// Move an amount between two of --keys accounts
    Transfer,
    /// Read a range of --range keys on one peer
    Range,
    /// Read one key on one peer
    Evaluate,
    /// Write a new key to a private data collection
    Private,
}

impl Workload {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Create => "create",
            Self::Update => "update",
            Self::Transfer => "transfer",
            Self::Range => "range",
            Self::Evaluate => "evaluate",
            Self::Private => "private",
        }
    }

    /// Whether the calls read what was written before the run.
    pub(crate) fn reads_prepared(self) -> bool {
        matches!(self, Self::Update | Self::Transfer | Self::Range | Self::Evaluate)
    }

    /// Whether the calls are evaluated instead of submitted.
    pub(crate) fn is_evaluated(self) -> bool {
        matches!(self, Self::Range | Self::Evaluate)
    }
}

/// A workload with its sizes.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) workload: Workload,
    pub(crate) keys: u32,
    pub(crate) zipf: f64,
    pub(crate) value_bytes: usize,
    pub(crate) range: u32,
    pub(crate) collection: String,
}

/// The calls of one client: an own stream of random choices, and keys that no other client uses.
#[derive(Debug)]
pub(crate) struct Calls {
    shape: Shape,
    skew: Option<Zipf<f64>>,
    random: SmallRng,
    prefix: String,
    next: u64,
    value: String,
}

impl Calls {
    /// The calls of a new client.
    pub(crate) fn new(shape: &Shape) -> Self {
        let mut random: SmallRng = rand::make_rng();
        let prefix = format!("{:016x}", random.random::<u64>());
        let value: String =
            (0..shape.value_bytes).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
        let skew = (shape.zipf > 0.0).then(|| {
            Zipf::new(f64::from(shape.keys), shape.zipf)
                .expect("invariant: keys and skew were checked on the command line")
        });
        Self { shape: shape.clone(), skew, random, prefix, next: 0, value }
    }

    /// The next call on a contract.
    pub(crate) fn next(&mut self, contract: &Contract) -> Call {
        match self.shape.workload {
            Workload::Put => contract.call("Put").argument(self.own_key()).argument(self.value.clone()),
            Workload::Create => contract.call("Create").argument(self.own_key()).argument(self.value.clone()),
            Workload::Update => {
                contract.call("Update").argument(key(self.choose())).argument(self.value.clone())
            }
            Workload::Transfer => {
                let from = self.choose();
                let to = (from + 1 + self.random.random_range(0..self.shape.keys - 1)) % self.shape.keys;
                contract.call("Transfer").argument(account(from)).argument(account(to)).argument("1")
            }
            Workload::Evaluate => contract.call("Get").argument(key(self.choose())),
            Workload::Range => {
                let last = self.shape.keys.saturating_sub(self.shape.range);
                let first = self.choose().min(last);
                contract.call("Range").argument(key(first)).argument(key(first + self.shape.range))
            }
            Workload::Private => {
                let call = contract.call("PutPrivate").argument(self.shape.collection.clone());
                call.argument(self.own_key()).transient("value", Bytes::from(self.value.clone()))
            }
        }
    }

    fn own_key(&mut self) -> String {
        self.next += 1;
        format!("{}-{:08x}", self.prefix, self.next)
    }

    fn choose(&mut self) -> u32 {
        match &self.skew {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rank lies between 1 and the number of keys"
            )]
            Some(zipf) => (zipf.sample(&mut self.random) as u32 - 1).min(self.shape.keys - 1),
            None => self.random.random_range(0..self.shape.keys),
        }
    }
}

fn key(number: u32) -> String {
    format!("key{number:010}")
}

fn account(number: u32) -> String {
    format!("account{number:010}")
}

/// Writes what the workload reads: keys for update, evaluate and range, accounts for transfer.
///
/// # Errors
/// The chaincode is not there, or refuses.
pub(crate) async fn prepare(shape: &Shape, contracts: &[Contract]) -> anyhow::Result<()> {
    let function = match shape.workload {
        Workload::Update | Workload::Evaluate | Workload::Range => "Fill",
        Workload::Transfer => "Open",
        Workload::Put | Workload::Create | Workload::Private => return Ok(()),
    };
    let what = match function {
        "Fill" => shape.value_bytes.to_string(),
        _ => BALANCE.to_string(),
    };
    eprintln!("writing {} keys that the load reads ...", shape.keys);
    let calls =
        (0..shape.keys).step_by(FILL_KEYS as usize).zip(contracts.iter().cycle()).map(|(first, contract)| {
            let count = FILL_KEYS.min(shape.keys - first);
            let call = contract.call(function).argument(first.to_string()).argument(count.to_string());
            call.argument(what.clone()).submit()
        });
    stream::iter(calls).buffer_unordered(FILL_IN_FLIGHT).try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(zipf: f64) -> Calls {
        Calls::new(&Shape {
            workload: Workload::Update,
            keys: 100,
            zipf,
            value_bytes: 10,
            range: 10,
            collection: String::new(),
        })
    }

    #[test]
    fn skewed_choices_prefer_the_first_keys_and_stay_in_range() {
        let mut skewed = calls(1.2);
        let choices: Vec<u32> = (0..2_000).map(|_| skewed.choose()).collect();
        assert!(choices.iter().all(|&choice| choice < 100));
        let first = choices.iter().filter(|&&choice| choice == 0).count();
        assert!(first > 300, "key 0 was chosen {first} times of 2000");
    }

    #[test]
    fn own_keys_of_two_clients_never_meet() {
        let (mut one, mut other) = (calls(0.0), calls(0.0));
        assert_ne!(one.own_key(), other.own_key());
        assert_ne!(one.own_key(), one.own_key());
    }
}
