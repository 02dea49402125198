//! The chaincode of the asset-transfer-basic sample: assets that are created, changed, handed over and deleted.
//!
//! Functions, arguments, JSON and error texts are those that applications written for Hyperledger Fabric's public sample
//! expect; every change also emits an event named after the function, with the asset as payload.

use consort_chaincode_sdk::{Context, Error, Schema, contract};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An asset, its fields in the order in which they are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
#[serde(rename_all = "PascalCase")]
pub struct Asset {
    /// What it is estimated at.
    pub appraised_value: i64,
    /// Its colour.
    pub color: String,
    /// Its key in the ledger.
    #[serde(rename = "ID")]
    pub id: String,
    /// Whom it belongs to.
    pub owner: String,
    /// How large it is.
    pub size: i64,
    /// Marks the assets of the first set.
    #[serde(rename = "docType", default, skip_serializing_if = "Option::is_none")]
    pub doc_type: Option<String>,
}

/// The sample's contract.
#[derive(Debug, Default)]
pub struct AssetTransfer;

#[contract]
impl AssetTransfer {
    /// Writes the first set of assets; calling it again writes them anew.
    #[submit]
    fn init_ledger(&self, context: &Context<'_>) -> Result<(), Error> {
        let assets = [
            ("asset1", "blue", 5, "Tomoko", 300),
            ("asset2", "red", 5, "Brad", 400),
            ("asset3", "green", 10, "Jin Soo", 500),
            ("asset4", "yellow", 10, "Max", 600),
            ("asset5", "black", 15, "Adriana", 700),
            ("asset6", "white", 15, "Michel", 800),
        ];
        for (id, color, size, owner, appraised_value) in assets {
            let asset = Asset {
                appraised_value,
                color: color.to_owned(),
                id: id.to_owned(),
                owner: owner.to_owned(),
                size,
                doc_type: Some("asset".to_owned()),
            };
            context.put_json(id, &asset)?;
        }
        Ok(())
    }

    #[submit]
    fn create_asset(
        &self,
        context: &Context<'_>,
        id: String,
        color: String,
        size: i64,
        owner: String,
        appraised_value: i64,
    ) -> Result<(), Error> {
        if context.exists(&id)? {
            return Err(Error::new(format!("The asset {id} already exists")));
        }
        let asset = Asset { appraised_value, color, id, owner, size, doc_type: None };
        store(context, "CreateAsset", &asset)
    }

    #[evaluate]
    fn read_asset(&self, context: &Context<'_>, id: &str) -> Result<Vec<u8>, Error> {
        context.get(id)?.ok_or_else(|| missing(id))
    }

    #[submit]
    fn update_asset(
        &self,
        context: &Context<'_>,
        id: String,
        color: String,
        size: i64,
        owner: String,
        appraised_value: i64,
    ) -> Result<(), Error> {
        if !context.exists(&id)? {
            return Err(missing(&id));
        }
        let asset = Asset { appraised_value, color, id, owner, size, doc_type: None };
        store(context, "UpdateAsset", &asset)
    }

    #[submit]
    fn delete_asset(&self, context: &Context<'_>, id: &str) -> Result<(), Error> {
        let asset = context.get(id)?.ok_or_else(|| missing(id))?;
        context.delete(id)?;
        context.emit("DeleteAsset", &asset)
    }

    #[evaluate]
    fn asset_exists(&self, context: &Context<'_>, id: &str) -> Result<bool, Error> {
        context.exists(id)
    }

    /// Hands an asset over and returns its former owner.
    #[submit]
    fn transfer_asset(&self, context: &Context<'_>, id: &str, new_owner: String) -> Result<String, Error> {
        let mut asset: Asset = context.get_json(id)?.ok_or_else(|| missing(id))?;
        let old_owner = std::mem::replace(&mut asset.owner, new_owner);
        store(context, "TransferAsset", &asset)?;
        Ok(old_owner)
    }

    /// All assets in the order of their keys; a value that is not JSON is shown as text.
    #[evaluate]
    fn get_all_assets(&self, context: &Context<'_>) -> Result<Vec<Value>, Error> {
        let shown = |value: &[u8]| {
            serde_json::from_slice(value).unwrap_or_else(|_| String::from_utf8_lossy(value).into())
        };
        context.range("", "")?.map(|pair| Ok(shown(&pair?.value))).collect()
    }
}

consort_chaincode_sdk::chaincode!(AssetTransfer);

fn store(context: &Context<'_>, event: &str, asset: &Asset) -> Result<(), Error> {
    let json = serde_json::to_vec(asset)?;
    context.put(&asset.id, &json)?;
    context.emit(event, &json)
}

fn missing(id: &str) -> Error {
    Error::new(format!("The asset {id} does not exist"))
}

#[cfg(test)]
mod tests {
    use consort_chaincode_sdk::testing::MemoryLedger;

    use super::*;

    fn ledger() -> MemoryLedger {
        let mut ledger = MemoryLedger::new();
        ledger.submit(&chaincode(), "InitLedger", &[]).unwrap();
        ledger
    }

    #[test]
    fn the_first_set_has_six_assets_with_fields_in_alphabetic_order() {
        let all = ledger().evaluate(&chaincode(), "GetAllAssets", &[]).unwrap();
        let all = String::from_utf8(all).unwrap();
        assert!(all.starts_with(
            r#"[{"AppraisedValue":300,"Color":"blue","ID":"asset1","Owner":"Tomoko","Size":5,"docType":"asset"},"#
        ));
        assert_eq!(serde_json::from_str::<Vec<Asset>>(&all).unwrap().len(), 6);
    }

    #[test]
    fn an_empty_ledger_has_an_empty_list_of_assets() {
        assert_eq!(MemoryLedger::new().evaluate(&chaincode(), "GetAllAssets", &[]).unwrap(), b"[]");
    }

    #[test]
    fn a_created_asset_is_read_back_and_announced() {
        let mut ledger = ledger();
        let payload =
            ledger.submit(&chaincode(), "CreateAsset", &["asset7", "yellow", "5", "Tom", "1300"]).unwrap();
        assert!(payload.is_empty());
        let asset = ledger.evaluate(&chaincode(), "ReadAsset", &["asset7"]).unwrap();
        assert_eq!(
            asset,
            br#"{"AppraisedValue":1300,"Color":"yellow","ID":"asset7","Owner":"Tom","Size":5}"#
        );
        assert_eq!(ledger.events().last().unwrap().name, "CreateAsset");
        assert_eq!(ledger.events().last().unwrap().payload, asset);
    }

    #[test]
    fn an_asset_is_created_once() {
        let error = ledger()
            .submit(&chaincode(), "CreateAsset", &["asset1", "yellow", "5", "Tom", "1300"])
            .unwrap_err();
        assert_eq!(error.message(), "The asset asset1 already exists");
    }

    #[test]
    fn whatever_needs_an_asset_says_that_it_is_missing() {
        for (function, arguments) in [
            ("ReadAsset", &["asset70"][..]),
            ("UpdateAsset", &["asset70", "blue", "5", "Tomoko", "300"]),
            ("DeleteAsset", &["asset70"]),
            ("TransferAsset", &["asset70", "Tom"]),
        ] {
            let error = ledger().submit(&chaincode(), function, arguments).unwrap_err();
            assert_eq!(error.message(), "The asset asset70 does not exist", "{function}");
        }
    }

    #[test]
    fn an_update_replaces_every_field() {
        let mut ledger = ledger();
        ledger.submit(&chaincode(), "UpdateAsset", &["asset1", "pink", "6", "Ann", "1"]).unwrap();
        let expected: &[u8] = br#"{"AppraisedValue":1,"Color":"pink","ID":"asset1","Owner":"Ann","Size":6}"#;
        assert_eq!(ledger.value("asset1"), Some(expected));
        assert_eq!(ledger.events().last().unwrap().name, "UpdateAsset");
    }

    #[test]
    fn a_transfer_returns_the_former_owner() {
        let mut ledger = ledger();
        assert_eq!(ledger.submit(&chaincode(), "TransferAsset", &["asset1", "Saptha"]).unwrap(), b"Tomoko");
        let asset: Asset = serde_json::from_slice(ledger.value("asset1").unwrap()).unwrap();
        assert_eq!((asset.owner.as_str(), asset.doc_type.as_deref()), ("Saptha", Some("asset")));
        assert_eq!(ledger.events().last().unwrap().name, "TransferAsset");
    }

    #[test]
    fn a_deleted_asset_no_longer_exists() {
        let mut ledger = ledger();
        assert_eq!(ledger.evaluate(&chaincode(), "AssetExists", &["asset1"]).unwrap(), b"true");
        ledger.submit(&chaincode(), "DeleteAsset", &["asset1"]).unwrap();
        assert_eq!(ledger.evaluate(&chaincode(), "AssetExists", &["asset1"]).unwrap(), b"false");
        assert_eq!(ledger.events().last().unwrap().name, "DeleteAsset");
    }
}
