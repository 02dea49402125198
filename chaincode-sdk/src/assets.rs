//! Values of one type under composite keys.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::{Range, read_json};
use crate::{Context, Error, composite_key, split_composite_key};

/// The assets of one kind: JSON values under composite keys that begin with the kind's name.
///
/// ```
/// # use consort_chaincode_sdk::{Context, Error};
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct Bond { value: u64 }
///
/// fn issue(context: &Context<'_>, issuer: &str, number: &str) -> Result<(), Error> {
///     context.assets::<Bond>("bond").create(&[issuer, number], &Bond { value: 100 })
/// }
/// ```
#[expect(missing_debug_implementations, reason = "a view holds nothing of its own to show")]
pub struct Assets<'c, 'l, T> {
    context: &'c Context<'l>,
    kind: &'c str,
    of: PhantomData<fn() -> T>,
}

/// One page of assets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetPage<T> {
    /// The attributes of each asset's key, and its value.
    pub assets: Vec<(Vec<String>, T)>,
    /// What to ask for the next page with; empty when there is none.
    pub bookmark: String,
}

impl<'c, 'l, T: Serialize + DeserializeOwned> Assets<'c, 'l, T> {
    pub(crate) fn new(context: &'c Context<'l>, kind: &'c str) -> Self {
        Self { context, kind, of: PhantomData }
    }

    /// The key of an asset in the ledger.
    ///
    /// # Errors
    /// An attribute contains U+0000 or U+10FFFF.
    pub fn key(&self, attributes: &[&str]) -> Result<String, Error> {
        composite_key(self.kind, attributes)
    }

    /// An asset, if it exists.
    ///
    /// # Errors
    /// The ledger's, or the value is of another type.
    pub fn find(&self, attributes: &[&str]) -> Result<Option<T>, Error> {
        self.context.get_json(&self.key(attributes)?)
    }

    /// An asset that must exist.
    ///
    /// # Errors
    /// It does not (status 404), or as [`find`](Self::find).
    pub fn get(&self, attributes: &[&str]) -> Result<T, Error> {
        self.find(attributes)?.ok_or_else(|| {
            Error::with_status(404, format!("the {} {} does not exist", self.kind, attributes.join("/")))
        })
    }

    /// Whether an asset exists.
    ///
    /// # Errors
    /// The ledger's.
    pub fn exists(&self, attributes: &[&str]) -> Result<bool, Error> {
        self.context.exists(&self.key(attributes)?)
    }

    /// Writes an asset that must not exist yet.
    ///
    /// # Errors
    /// It does (status 409), or the ledger's.
    pub fn create(&self, attributes: &[&str], asset: &T) -> Result<(), Error> {
        if self.exists(attributes)? {
            let text = format!("the {} {} already exists", self.kind, attributes.join("/"));
            return Err(Error::with_status(409, text));
        }
        self.put(attributes, asset)
    }

    /// Writes an asset, whether it exists or not.
    ///
    /// # Errors
    /// The ledger's.
    pub fn put(&self, attributes: &[&str], asset: &T) -> Result<(), Error> {
        self.context.put_json(&self.key(attributes)?, asset)
    }

    /// Deletes an asset.
    ///
    /// # Errors
    /// The ledger's.
    pub fn delete(&self, attributes: &[&str]) -> Result<(), Error> {
        self.context.delete(&self.key(attributes)?)
    }

    /// The assets whose attributes begin with these. The transaction becomes invalid if the set changes before it is committed.
    ///
    /// # Errors
    /// The ledger's.
    pub fn all(&self, first: &[&str]) -> Result<AssetRange<T>, Error> {
        Ok(AssetRange { range: self.context.composite_range(self.kind, first)?, of: PhantomData })
    }

    /// One page of the assets whose attributes begin with these, in a transaction that writes nothing.
    ///
    /// # Errors
    /// The transaction writes, or the ledger's.
    pub fn page(&self, first: &[&str], size: u32, bookmark: &str) -> Result<AssetPage<T>, Error> {
        let page = self.context.composite_page(self.kind, first, size, bookmark)?;
        let assets = page
            .entries
            .iter()
            .map(|pair| Ok((attributes(&pair.key)?, read_json(&pair.key, &pair.value)?)))
            .collect::<Result<_, Error>>()?;
        Ok(AssetPage { assets, bookmark: page.bookmark })
    }
}

fn attributes(key: &str) -> Result<Vec<String>, Error> {
    Ok(split_composite_key(key)?.into_iter().skip(1).map(str::to_owned).collect())
}

/// Assets in the order of their keys, each with the attributes of its key.
#[expect(missing_debug_implementations, reason = "a cursor holds nothing of its own to show")]
pub struct AssetRange<T> {
    range: Range,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for AssetRange<T> {
    type Item = Result<(Vec<String>, T), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(
            self.range
                .next()?
                .and_then(|pair| Ok((attributes(&pair.key)?, read_json(&pair.key, &pair.value)?))),
        )
    }
}
