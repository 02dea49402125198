//! Several contracts in one chaincode, and what it tells about itself.

use std::collections::BTreeMap;

use crate::{Context, Contract, Error};

/// The contract that every chaincode has, and its only function (the names are those of Fabric's contract interfaces).
const SYSTEM_CONTRACT: &str = "org.hyperledger.fabric";
const GET_METADATA: &str = "GetMetadata";
/// The schema that the metadata keeps to.
const METADATA_SCHEMA: &str =
    "https://hyperledger.github.io/fabric-chaincode-node/main/api/contract-schema.json";

/// Whether a function is meant to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It writes; clients submit it.
    Submit,
    /// It only reads; clients evaluate it. An attempt to write is refused.
    Evaluate,
}

/// A call, as hooks see it.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// The function's name as clients write it.
    pub function: &'c str,
    /// What it is for.
    pub kind: Kind,
    /// The arguments as they were sent.
    pub arguments: &'c [Vec<u8>],
}

/// Schemas of types, by name, as JSON.
pub type Schemas = BTreeMap<&'static str, &'static str>;

/// What a contract says about itself. Made by the attribute [`contract`](macro@crate::contract).
#[derive(Debug, Clone)]
pub struct Description {
    /// The contract's name.
    pub name: &'static str,
    /// Its functions: a JSON array.
    pub transactions: &'static str,
    /// The types that they use.
    pub schemas: Schemas,
}

/// A type that describes its JSON form. Derive it; types without it appear in the metadata as objects.
pub trait Schema {
    /// Adds the type's schema, and those of the types in it.
    fn collect(into: &mut Schemas);
}

/// Finds out whether a type has a [`Schema`]. Used by generated code.
#[doc(hidden)]
#[derive(Debug)]
pub struct Probe<T>(pub std::marker::PhantomData<T>);

impl<T: Schema> Probe<T> {
    /// Adds the type's schema.
    pub fn collect(&self, into: &mut Schemas) {
        T::collect(into);
    }
}

/// The answer of types that have none. Used by generated code.
#[doc(hidden)]
pub trait WithoutSchema {
    /// Adds nothing.
    fn collect(&self, _into: &mut Schemas) {}
}

impl<T> WithoutSchema for Probe<T> {}

/// A chaincode made of contracts. A client calls `<contract>:<function>`; without a contract's name the first one is meant.
///
/// [`chaincode!`](crate::chaincode!) makes one.
#[expect(missing_debug_implementations, reason = "contracts have nothing to show")]
pub struct Chaincode {
    title: &'static str,
    version: &'static str,
    contracts: Vec<Box<dyn Contract>>,
}

impl Chaincode {
    /// A chaincode without contracts.
    #[must_use]
    pub fn new(title: &'static str, version: &'static str) -> Self {
        Self { title, version, contracts: Vec::new() }
    }

    /// Adds a contract; the first one is the default.
    #[must_use]
    pub fn contract(mut self, contract: impl Contract + 'static) -> Self {
        self.contracts.push(Box::new(contract));
        self
    }

    /// What the chaincode says about itself: a JSON document in the form of Fabric's contract interfaces.
    #[must_use]
    pub fn metadata(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut schemas = Schemas::new();
        let mut contracts = Vec::new();
        for (index, description) in
            self.contracts.iter().filter_map(|contract| contract.describe()).enumerate()
        {
            let name = quoted(description.name);
            let default = if index == 0 { r#","default":true"# } else { "" };
            contracts.push(format!(
                r#"{name}:{{"name":{name},"info":{{"title":{name},"version":{}}},"transactions":{}{default}}}"#,
                quoted(self.version),
                description.transactions
            ));
            schemas.extend(description.schemas);
        }
        contracts.push(format!(
            r#""{SYSTEM_CONTRACT}":{{"name":"{SYSTEM_CONTRACT}","transactions":[{{"name":"{GET_METADATA}","tag":["evaluate","EVALUATE"],"returns":{{"type":"string"}}}}]}}"#
        ));
        let schemas: Vec<String> =
            schemas.into_iter().map(|(name, schema)| format!("{}:{schema}", quoted(name))).collect();
        format!(
            r#"{{"$schema":"{METADATA_SCHEMA}","info":{{"title":{},"version":{}}},"contracts":{{{}}},"components":{{"schemas":{{{}}}}}}}"#,
            quoted(self.title),
            quoted(self.version),
            contracts.join(","),
            schemas.join(",")
        )
    }

    fn names(&self) -> Vec<&'static str> {
        self.contracts.iter().filter_map(|contract| contract.name()).collect()
    }
}

impl Contract for Chaincode {
    fn invoke(&self, context: &Context<'_>, function: &str, arguments: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
        let (contract, name) = match function.rsplit_once(':') {
            Some((SYSTEM_CONTRACT, GET_METADATA)) => return Ok(self.metadata().into_bytes()),
            Some((contract, name)) if !contract.is_empty() => {
                let found = self.contracts.iter().find(|known| known.name() == Some(contract));
                (found, name)
            }
            Some((_, name)) => (self.contracts.first(), name),
            None => (self.contracts.first(), function),
        };
        let contract = contract.ok_or_else(|| {
            Error::new(format!(
                "Contract not found with name in {function:?}; this chaincode has {}",
                self.names().join(", ")
            ))
        })?;
        contract.invoke(context, name, arguments)
    }
}

/// Words for a function that does not exist. Used by generated code.
#[doc(hidden)]
#[must_use]
pub fn unknown_function(function: &str, known: &[&str]) -> Error {
    Error::new(format!(
        "You've asked to invoke a function that does not exist: {function}. There are: {}",
        known.join(", ")
    ))
}

/// Words for a wrong number of arguments. Used by generated code.
#[doc(hidden)]
#[must_use]
pub fn wrong_count(signature: &str, expected: usize, given: usize) -> Error {
    let plural = if expected == 1 { "" } else { "s" };
    Error::new(format!("{signature} expects {expected} argument{plural}, but {given} were given"))
}

/// Words for an argument that cannot be read. Used by generated code.
#[doc(hidden)]
#[must_use]
pub fn wrong_argument(signature: &str, position: usize, name: &str, error: &Error) -> Error {
    Error::new(format!("{signature}: argument {position} ({name}): {error}"))
}
