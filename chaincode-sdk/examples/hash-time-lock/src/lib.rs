//! A hash time-locked exchange: two parties swap assets, on one channel or on two, without trusting each other.
//!
//! The first party locks its asset for the second one under the SHA-256 of a secret. The second party, who knows the hash only, locks its
//! own under the same hash and for a shorter time. Whoever claims the second lock shows the secret in doing so, and with it the first
//! lock can be claimed. If nobody claims, each asset goes back when its time is over.
//!
//! The time is that of the proposals, which clients write and peers hold against their clocks; choose lifetimes that are long against the
//! peers' window (15 minutes unless configured otherwise).

use consort_chaincode_sdk::{Context, Error, Schema, contract};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Something that belongs to somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct Asset {
    /// The id of the owner's certificate.
    pub owner: String,
    /// What it is.
    pub description: String,
    /// The lock under which it lies, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
}

/// Where a lock stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum State {
    /// It can be claimed with the secret, until its time is over.
    Locked,
    /// The receiver has claimed the asset; the secret is known.
    Claimed,
    /// The asset went back to its owner.
    Refunded,
}

/// An asset that waits for a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// The asset.
    pub asset: String,
    /// Who locked it.
    pub sender: String,
    /// Who may claim it.
    pub receiver: String,
    /// SHA-256 of the secret, 64 hexadecimal digits.
    pub hash: String,
    /// From when on the sender may take it back, in seconds since 1970.
    pub expires: i64,
    /// Where it stands.
    pub state: State,
    /// The secret, once it was shown: hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// The contract.
#[derive(Debug, Default)]
pub struct Exchange;

#[contract]
impl Exchange {
    /// Makes an asset that belongs to the caller.
    #[submit]
    fn create_asset(&self, context: &Context<'_>, id: &str, description: String) -> Result<(), Error> {
        let asset = Asset { owner: context.client()?.id, description, lock: None };
        context.assets("asset").create(&[id], &asset)
    }

    #[evaluate]
    fn read_asset(&self, context: &Context<'_>, id: &str) -> Result<Asset, Error> {
        context.assets("asset").get(&[id])
    }

    #[evaluate]
    fn read_lock(&self, context: &Context<'_>, id: &str) -> Result<Lock, Error> {
        context.assets("lock").get(&[id])
    }

    /// Locks an asset of the caller for a receiver, for so many seconds. The lock's id is the transaction's, and is returned.
    #[submit]
    fn lock(
        &self,
        context: &Context<'_>,
        asset: &str,
        receiver: String,
        hash: &str,
        lifetime: u32,
    ) -> Result<String, Error> {
        let assets = context.assets::<Asset>("asset");
        let mut locked = assets.get(&[asset])?;
        let sender = context.client()?.id;
        if locked.owner != sender {
            return Err(Error::with_status(403, format!("the asset {asset} belongs to somebody else")));
        }
        if let Some(lock) = &locked.lock {
            return Err(Error::with_status(409, format!("the asset {asset} is locked already, by {lock}")));
        }
        if receiver.is_empty() || receiver == sender {
            return Err(Error::with_status(400, "the receiver must be somebody else"));
        }
        if hex_decoded(hash)?.len() != 32 || lifetime == 0 {
            return Err(Error::with_status(
                400,
                "a lock needs the SHA-256 of a secret and a positive lifetime",
            ));
        }
        let id = context.tx_id();
        let expires = context.timestamp().seconds.saturating_add(i64::from(lifetime));
        let hash = hash.to_ascii_lowercase();
        let lock = Lock {
            asset: asset.to_owned(),
            sender,
            receiver,
            hash,
            expires,
            state: State::Locked,
            secret: None,
        };
        locked.lock = Some(id.clone());
        assets.put(&[asset], &locked)?;
        context.assets("lock").create(&[&id], &lock)?;
        context.emit_json("Locked", &lock)?;
        Ok(id)
    }

    /// Gives the asset to its receiver, who shows the secret.
    #[submit]
    fn claim(&self, context: &Context<'_>, id: &str, secret: &str) -> Result<(), Error> {
        let (mut lock, mut asset) = open(context, id)?;
        if context.client()?.id != lock.receiver {
            return Err(Error::with_status(403, "only the receiver may claim"));
        }
        if context.timestamp().seconds >= lock.expires {
            return Err(Error::with_status(410, "the time to claim is over"));
        }
        if hex_encoded(&Sha256::digest(hex_decoded(secret)?)) != lock.hash {
            return Err(Error::with_status(403, "this is not the secret"));
        }
        lock.state = State::Claimed;
        lock.secret = Some(secret.to_ascii_lowercase());
        asset.owner.clone_from(&lock.receiver);
        close(context, id, &lock, asset, "Claimed")
    }

    /// Gives the asset back to its sender, once the time is over.
    #[submit]
    fn refund(&self, context: &Context<'_>, id: &str) -> Result<(), Error> {
        let (mut lock, asset) = open(context, id)?;
        if context.client()?.id != lock.sender {
            return Err(Error::with_status(403, "only the sender may take the asset back"));
        }
        if context.timestamp().seconds < lock.expires {
            return Err(Error::with_status(403, format!("the receiver may claim it until {}", lock.expires)));
        }
        lock.state = State::Refunded;
        close(context, id, &lock, asset, "Refunded")
    }
}

consort_chaincode_sdk::chaincode!(Exchange);

/// A lock that nobody has closed, and its asset.
fn open(context: &Context<'_>, id: &str) -> Result<(Lock, Asset), Error> {
    let lock = context.assets::<Lock>("lock").get(&[id])?;
    if lock.state != State::Locked {
        return Err(Error::with_status(409, format!("the lock is closed: {:?}", lock.state)));
    }
    let asset = context.assets::<Asset>("asset").get(&[&lock.asset])?;
    Ok((lock, asset))
}

fn close(context: &Context<'_>, id: &str, lock: &Lock, mut asset: Asset, event: &str) -> Result<(), Error> {
    asset.lock = None;
    context.assets("asset").put(&[&lock.asset], &asset)?;
    context.assets("lock").put(&[id], lock)?;
    context.emit_json(event, lock)
}

fn hex_decoded(text: &str) -> Result<Vec<u8>, Error> {
    let wrong = || Error::with_status(400, "hashes and secrets are written in hexadecimal digits");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(wrong());
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong()))
        .collect()
}

fn hex_encoded(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use consort_chaincode_sdk::Timestamp;
    use consort_chaincode_sdk::testing::MemoryLedger;

    use super::*;

    const SECRET: &str = "00112233445566778899aabbccddeeff";

    fn hash() -> String {
        hex_encoded(&Sha256::digest(hex_decoded(SECRET).unwrap()))
    }

    fn id(name: &str) -> String {
        MemoryLedger::client("Org1MSP", name).id
    }

    fn act(ledger: &mut MemoryLedger, name: &str, at: i64) {
        ledger.set_client(MemoryLedger::client("Org1MSP", name));
        ledger.set_timestamp(Timestamp { seconds: at, nanoseconds: 0 });
    }

    /// Ann's painting, locked for Bob until 1600.
    fn locked() -> (MemoryLedger, String) {
        let mut ledger = MemoryLedger::new();
        act(&mut ledger, "Ann", 1000);
        ledger.submit(&chaincode(), "CreateAsset", &["painting", "oil"]).unwrap();
        let lock = ledger.submit(&chaincode(), "Lock", &["painting", &id("Bob"), &hash(), "600"]).unwrap();
        (ledger, String::from_utf8(lock).unwrap())
    }

    fn owner(ledger: &MemoryLedger) -> String {
        let asset = ledger.evaluate(&chaincode(), "ReadAsset", &["painting"]).unwrap();
        serde_json::from_slice::<Asset>(&asset).unwrap().owner
    }

    #[test]
    fn who_knows_the_secret_in_time_gets_the_asset_and_shows_the_secret() {
        let (mut ledger, lock) = locked();
        act(&mut ledger, "Bob", 1599);
        ledger.submit(&chaincode(), "Claim", &[&lock, SECRET]).unwrap();
        assert_eq!(owner(&ledger), id("Bob"));
        let closed: Lock =
            serde_json::from_slice(&ledger.evaluate(&chaincode(), "ReadLock", &[&lock]).unwrap()).unwrap();
        assert_eq!((closed.state, closed.secret.as_deref()), (State::Claimed, Some(SECRET)));
        assert_eq!(ledger.events().last().unwrap().name, "Claimed");
    }

    #[test]
    fn nobody_else_and_nothing_else_opens_the_lock() {
        let (mut ledger, lock) = locked();
        act(&mut ledger, "Bob", 1001);
        assert_eq!(
            ledger.submit(&chaincode(), "Claim", &[&lock, "00"]).unwrap_err().message(),
            "this is not the secret"
        );
        act(&mut ledger, "Eve", 1001);
        assert_eq!(ledger.submit(&chaincode(), "Claim", &[&lock, SECRET]).unwrap_err().status(), 403);
        assert_eq!(owner(&ledger), id("Ann"));
    }

    #[test]
    fn after_its_time_the_asset_goes_back_and_not_before() {
        let (mut ledger, lock) = locked();
        assert_eq!(ledger.submit(&chaincode(), "Refund", &[&lock]).unwrap_err().status(), 403);
        act(&mut ledger, "Bob", 1600);
        assert_eq!(ledger.submit(&chaincode(), "Claim", &[&lock, SECRET]).unwrap_err().status(), 410);
        act(&mut ledger, "Ann", 1600);
        ledger.submit(&chaincode(), "Refund", &[&lock]).unwrap();
        assert_eq!(owner(&ledger), id("Ann"));
        assert_eq!(ledger.submit(&chaincode(), "Refund", &[&lock]).unwrap_err().status(), 409);
    }

    #[test]
    fn an_asset_lies_under_one_lock_and_only_its_owner_locks_it() {
        let (mut ledger, _) = locked();
        let again = ["painting", &id("Bob"), &hash(), "600"];
        assert_eq!(ledger.submit(&chaincode(), "Lock", &again).unwrap_err().status(), 409);
        act(&mut ledger, "Eve", 1000);
        assert_eq!(ledger.submit(&chaincode(), "Lock", &again).unwrap_err().status(), 403);
    }

    #[test]
    fn two_assets_are_swapped_with_one_secret() {
        let (mut ledger, first) = locked();
        act(&mut ledger, "Bob", 1010);
        ledger.submit(&chaincode(), "CreateAsset", &["violin", "1721"]).unwrap();
        let second = ledger.submit(&chaincode(), "Lock", &["violin", &id("Ann"), &hash(), "300"]).unwrap();
        let second = String::from_utf8(second).unwrap();
        act(&mut ledger, "Ann", 1020);
        ledger.submit(&chaincode(), "Claim", &[&second, SECRET]).unwrap();
        // Bob reads the secret where Ann has shown it.
        let shown: Lock =
            serde_json::from_slice(&ledger.evaluate(&chaincode(), "ReadLock", &[&second]).unwrap()).unwrap();
        act(&mut ledger, "Bob", 1030);
        ledger.submit(&chaincode(), "Claim", &[&first, &shown.secret.unwrap()]).unwrap();
        assert_eq!(owner(&ledger), id("Bob"));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let mut ledger = MemoryLedger::new();
        act(&mut ledger, "Ann", 1000);
        ledger.submit(&chaincode(), "CreateAsset", &["painting", "oil"]).unwrap();
        for hash in ["", "zz", "é", "00", &"é0".repeat(20)] {
            let arguments = ["painting", &id("Bob"), hash, "600"];
            assert_eq!(ledger.submit(&chaincode(), "Lock", &arguments).unwrap_err().status(), 400, "{hash}");
        }
    }
}
