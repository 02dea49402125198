//! A sale between two organisations that agree on a price which nobody else learns.
//!
//! The asset's public record names its owner. Its description lies in the owner's own collection (`_implicit_org_<MSP id>`), and so do
//! both sides' views of the price: each side writes the price that it agrees to into its own collection, and the transfer happens when
//! the hashes of both are equal. Every peer can compare hashes; only the two sides know the price. After the change, the public record can
//! be written by the new owner's peers alone (a policy of its key).
//!
//! The idea is that of Fabric's public sample `asset-transfer-secured-agreement`.

use consort_chaincode_sdk::{Collection, Context, Error, KeyPolicy, Schema, composite_key, contract};
use serde::{Deserialize, Serialize};

/// Name of the transient data's entry with the private description.
const PROPERTIES: &str = "asset_properties";
/// Name of the transient data's entry with a price.
const PRICE: &str = "asset_price";

/// What everybody sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "camelCase")]
pub struct Asset {
    /// The asset's id.
    pub id: String,
    /// The organisation that owns it.
    pub owner: String,
    /// What the owner says about it in public, such as that it is for sale.
    pub public_description: String,
}

/// What one side agrees to. The trade's id makes the hash of a price unguessable, as long as it is random and private.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The asset.
    pub asset_id: String,
    /// The price.
    pub price: u64,
    /// A random id of this trade that both sides exchange in private.
    pub trade_id: String,
}

/// The contract.
#[derive(Debug, Default)]
pub struct Agreement;

#[contract]
impl Agreement {
    /// Makes an asset of the caller's organisation. Its private description is the transient entry `asset_properties`.
    #[submit]
    fn create_asset(&self, context: &Context<'_>, id: &str, public_description: String) -> Result<(), Error> {
        let owner = own_peer(context)?;
        let properties = transient(context, PROPERTIES)?;
        let asset = Asset { id: id.to_owned(), owner: owner.clone(), public_description };
        context.assets("asset").create(&[id], &asset)?;
        context.set_key_policy(&composite_key("asset", &[id])?, &KeyPolicy::all_of([owner.as_str()]))?;
        context.private(&Collection::implicit(&owner)).put(id, &properties)
    }

    /// Changes what the owner says in public.
    #[submit]
    fn change_public_description(&self, context: &Context<'_>, id: &str, text: String) -> Result<(), Error> {
        let assets = context.assets::<Asset>("asset");
        let mut asset = assets.get(&[id])?;
        context.client()?.require_msp_id(&asset.owner)?;
        asset.public_description = text;
        assets.put(&[id], &asset)
    }

    #[evaluate]
    fn read_asset(&self, context: &Context<'_>, id: &str) -> Result<Asset, Error> {
        context.assets("asset").get(&[id])
    }

    /// The private description, for clients of its owner at a peer of its owner.
    #[evaluate]
    fn read_private_properties(&self, context: &Context<'_>, id: &str) -> Result<Vec<u8>, Error> {
        let own = own_peer(context)?;
        let found = context.private(&Collection::implicit(&own)).get(id)?;
        found.ok_or_else(|| Error::with_status(404, format!("{own} has no private properties of {id}")))
    }

    /// Whether a description that the seller tells is the one that the ledger has the hash of. For the buyer, before it agrees.
    #[evaluate]
    fn verify_properties(&self, context: &Context<'_>, id: &str) -> Result<bool, Error> {
        let asset = context.assets::<Asset>("asset").get(&[id])?;
        let told = sha256(&transient(context, PROPERTIES)?);
        Ok(context.private(&Collection::implicit(&asset.owner)).hash(id)? == Some(told))
    }

    /// The owner agrees to a price: the transient entry `asset_price`.
    #[submit]
    fn agree_to_sell(&self, context: &Context<'_>, id: &str) -> Result<(), Error> {
        let asset = context.assets::<Asset>("asset").get(&[id])?;
        context.client()?.require_msp_id(&asset.owner)?;
        agree(context, "sell", id)
    }

    /// A buyer agrees to a price: the transient entry `asset_price`.
    #[submit]
    fn agree_to_buy(&self, context: &Context<'_>, id: &str) -> Result<(), Error> {
        let asset = context.assets::<Asset>("asset").get(&[id])?;
        if context.client()?.msp_id == asset.owner {
            return Err(Error::with_status(400, "the owner cannot buy its own asset"));
        }
        agree(context, "buy", id)
    }

    /// The owner hands the asset over to a buyer. Transient entries: `asset_price` and `asset_properties`, which become the buyer's.
    /// Needs endorsements of both organisations.
    #[submit]
    fn transfer_asset(&self, context: &Context<'_>, id: &str, buyer: &str) -> Result<(), Error> {
        let assets = context.assets::<Asset>("asset");
        let mut asset = assets.get(&[id])?;
        context.client()?.require_msp_id(&asset.owner)?;
        let seller = std::mem::replace(&mut asset.owner, buyer.to_owned());
        let (price, properties) = (transient(context, PRICE)?, transient(context, PROPERTIES)?);
        let (of_seller, of_buyer) = (Collection::implicit(&seller), Collection::implicit(buyer));
        let (of_seller, of_buyer) = (context.private(&of_seller), context.private(&of_buyer));
        let (sell, buy) = (price_key("sell", id)?, price_key("buy", id)?);
        expect_hash(&of_seller.hash(&sell)?, &price, "the seller has not agreed to this price")?;
        expect_hash(&of_buyer.hash(&buy)?, &price, "the buyer has not agreed to this price")?;
        expect_hash(&of_seller.hash(id)?, &properties, "these are not the properties of the asset")?;
        assets.put(&[id], &asset)?;
        context.set_key_policy(&assets.key(&[id])?, &KeyPolicy::all_of([buyer]))?;
        of_seller.delete(id)?;
        of_seller.delete(&sell)?;
        of_buyer.delete(&buy)?;
        of_buyer.put(id, &properties)?;
        context.emit_json("Transferred", &asset)
    }
}

consort_chaincode_sdk::chaincode!(Agreement);

/// The caller's organisation. Private data is given to a peer of the own organisation only, because that peer reads it.
fn own_peer(context: &Context<'_>) -> Result<String, Error> {
    let client = context.client()?.msp_id;
    if client != context.peer_msp_id() {
        return Err(Error::with_status(
            403,
            format!(
                "a client of {client} hands its private data to a peer of {client} only, and this one is another's"
            ),
        ));
    }
    Ok(client)
}

fn agree(context: &Context<'_>, side: &str, id: &str) -> Result<(), Error> {
    let own = own_peer(context)?;
    let bytes = transient(context, PRICE)?;
    let price: Price = context.transient_json(PRICE)?;
    if price.asset_id != id || price.trade_id.is_empty() {
        return Err(Error::with_status(400, "the price is for another asset, or has no trade_id"));
    }
    // The bytes as the client wrote them: both sides must write the same.
    context.private(&Collection::implicit(&own)).put(&price_key(side, id)?, &bytes)
}

fn price_key(side: &str, id: &str) -> Result<String, Error> {
    composite_key(side, &[id])
}

fn transient(context: &Context<'_>, name: &str) -> Result<Vec<u8>, Error> {
    context
        .transient(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| Error::with_status(400, format!("the transient data needs an entry {name}")))
}

fn expect_hash(hash: &Option<Vec<u8>>, value: &[u8], otherwise: &str) -> Result<(), Error> {
    if hash.as_deref() == Some(sha256(value).as_slice()) {
        Ok(())
    } else {
        Err(Error::with_status(403, otherwise))
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use consort_chaincode_sdk::testing::MemoryLedger;

    use super::*;

    const LAND: &[u8] = br#"{"size":120,"salt":"a3f1"}"#;
    const FAIR: &[u8] = br#"{"asset_id":"land","price":100,"trade_id":"9c2e"}"#;
    const CHEAP: &[u8] = br#"{"asset_id":"land","price":1,"trade_id":"9c2e"}"#;

    /// The next calls come from a client of this organisation, at a peer of it.
    fn act(ledger: &mut MemoryLedger, msp_id: &str, transient: &[(&str, &[u8])]) {
        ledger.set_client(MemoryLedger::client(msp_id, "User1"));
        ledger.set_peer_msp_id(msp_id);
        ledger.set_held_collections(&[&Collection::implicit(msp_id)]);
        ledger.clear_transient();
        for (name, value) in transient {
            ledger.set_transient(name, value);
        }
    }

    fn created() -> MemoryLedger {
        let mut ledger = MemoryLedger::new();
        act(&mut ledger, "Org1MSP", &[(PROPERTIES, LAND)]);
        ledger.submit(&chaincode(), "CreateAsset", &["land", "for sale"]).unwrap();
        ledger
    }

    fn agreed(sell: &[u8], buy: &[u8]) -> MemoryLedger {
        let mut ledger = created();
        act(&mut ledger, "Org1MSP", &[(PRICE, sell)]);
        ledger.submit(&chaincode(), "AgreeToSell", &["land"]).unwrap();
        act(&mut ledger, "Org2MSP", &[(PRICE, buy)]);
        ledger.submit(&chaincode(), "AgreeToBuy", &["land"]).unwrap();
        act(&mut ledger, "Org1MSP", &[(PRICE, sell), (PROPERTIES, LAND)]);
        ledger
    }

    #[test]
    fn an_asset_changes_hands_when_both_agree_to_one_price() {
        let mut ledger = agreed(FAIR, FAIR);
        ledger.submit(&chaincode(), "TransferAsset", &["land", "Org2MSP"]).unwrap();
        let asset = ledger.evaluate(&chaincode(), "ReadAsset", &["land"]).unwrap();
        assert_eq!(serde_json::from_slice::<Asset>(&asset).unwrap().owner, "Org2MSP");
        assert_eq!(ledger.private_value("_implicit_org_Org2MSP", "land"), Some(LAND));
        assert_eq!(ledger.private_value("_implicit_org_Org1MSP", "land"), None);
        let policy = ledger.key_policy(&composite_key("asset", &["land"]).unwrap()).unwrap();
        assert_eq!(policy, KeyPolicy::all_of(["Org2MSP"]).encode().unwrap());
        act(&mut ledger, "Org2MSP", &[]);
        assert_eq!(ledger.evaluate(&chaincode(), "ReadPrivateProperties", &["land"]).unwrap(), LAND);
    }

    #[test]
    fn different_prices_are_no_agreement() {
        let mut ledger = agreed(FAIR, CHEAP);
        let error = ledger.submit(&chaincode(), "TransferAsset", &["land", "Org2MSP"]).unwrap_err();
        assert_eq!(error.message(), "the buyer has not agreed to this price");
        let error = ledger.submit(&chaincode(), "TransferAsset", &["land", "Org3MSP"]).unwrap_err();
        assert_eq!(error.message(), "the buyer has not agreed to this price");
    }

    #[test]
    fn a_buyer_can_check_what_it_is_told() {
        let mut ledger = created();
        act(&mut ledger, "Org2MSP", &[(PROPERTIES, LAND)]);
        assert_eq!(ledger.evaluate(&chaincode(), "VerifyProperties", &["land"]).unwrap(), b"true");
        act(&mut ledger, "Org2MSP", &[(PROPERTIES, b"{\"size\":500}")]);
        assert_eq!(ledger.evaluate(&chaincode(), "VerifyProperties", &["land"]).unwrap(), b"false");
        assert!(ledger.evaluate(&chaincode(), "ReadPrivateProperties", &["land"]).is_err());
    }

    #[test]
    fn only_the_owner_sells_and_nobody_buys_from_themselves() {
        let mut ledger = created();
        act(&mut ledger, "Org2MSP", &[(PRICE, FAIR)]);
        assert_eq!(ledger.submit(&chaincode(), "AgreeToSell", &["land"]).unwrap_err().status(), 403);
        act(&mut ledger, "Org1MSP", &[(PRICE, FAIR)]);
        assert_eq!(ledger.submit(&chaincode(), "AgreeToBuy", &["land"]).unwrap_err().status(), 400);
        act(&mut ledger, "Org2MSP", &[(PRICE, FAIR), (PROPERTIES, LAND)]);
        assert_eq!(
            ledger.submit(&chaincode(), "TransferAsset", &["land", "Org2MSP"]).unwrap_err().status(),
            403
        );
    }

    #[test]
    fn private_data_is_not_handed_to_a_foreign_peer() {
        let mut ledger = MemoryLedger::new();
        act(&mut ledger, "Org1MSP", &[(PROPERTIES, LAND)]);
        ledger.set_peer_msp_id("Org2MSP");
        let error = ledger.submit(&chaincode(), "CreateAsset", &["land", ""]).unwrap_err();
        assert_eq!(error.status(), 403);
    }

    #[test]
    fn a_refusal_does_not_repeat_private_data() {
        let mut ledger = created();
        act(&mut ledger, "Org1MSP", &[(PRICE, br#"{"asset_id":"land","price":"secret word"}"#)]);
        let error = ledger.submit(&chaincode(), "AgreeToSell", &["land"]).unwrap_err();
        assert!(!error.message().contains("secret word"), "{error}");
    }
}
