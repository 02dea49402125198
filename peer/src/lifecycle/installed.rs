//! The functions of the lifecycle that concern the packages on this peer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use consort_ledger::StateSnapshot;
use consort_protos::fabric::lifecycle::{
    GetInstalledChaincodePackageArgs, GetInstalledChaincodePackageResult, InstallChaincodeArgs,
    InstallChaincodeResult, QueryInstalledChaincodeArgs, QueryInstalledChaincodeResult,
    QueryInstalledChaincodesResult, query_installed_chaincode_result, query_installed_chaincodes_result,
};
use consort_protos::ids::MspId;
use prost::Message;

use super::approval::StepError;
use super::chaincode::argument;
use super::definition::Definition;
use super::sources;
use crate::chaincode::{InstallError, PackageError, PackageId, StoreError, WasmRuntime};
use crate::registry::{Channels, with_causes};

/// Which chaincodes of which channel use a package: channel to names and versions.
type References = BTreeMap<String, Vec<(String, String)>>;

/// The packages of this peer and the channels that use them.
#[derive(Debug, Clone)]
pub struct Installed {
    runtime: Arc<WasmRuntime>,
    channels: Arc<Channels>,
    msp_id: MspId,
}

impl Installed {
    /// The packages of a peer of an organisation.
    #[must_use]
    pub fn new(runtime: Arc<WasmRuntime>, channels: Arc<Channels>, msp_id: MspId) -> Self {
        Self { runtime, channels, msp_id }
    }

    /// Prepares a package for a definition that will be in force soon, in the background, if the package is here.
    pub(super) fn prepare(&self, package: &PackageId, definition: &Definition) {
        if let Ok(allowance) = definition.allowance() {
            self.runtime.prepare_soon(package, allowance.stack_bytes);
        }
    }

    /// The installed package that this peer's organisation approved for a definition.
    pub(super) fn package_of(
        &self,
        snapshot: &StateSnapshot,
        definition: &Definition,
    ) -> Result<Option<PackageId>, consort_ledger::Error> {
        sources::package_of(snapshot, self.runtime.packages(), self.msp_id.as_str(), definition)
    }

    pub(super) fn invoke(&self, function: &str, bytes: &Bytes) -> Result<Bytes, StepError> {
        let result = match function {
            "InstallChaincode" => self.install(argument(bytes)?)?.encode_to_vec(),
            "QueryInstalledChaincodes" => self.all().encode_to_vec(),
            "QueryInstalledChaincode" => {
                self.one(&argument::<QueryInstalledChaincodeArgs>(bytes)?)?.encode_to_vec()
            }
            "GetInstalledChaincodePackage" => {
                self.package(&argument::<GetInstalledChaincodePackageArgs>(bytes)?)?.encode_to_vec()
            }
            other => return Err(StepError::Refused(format!("there is no function {other:?}"))),
        };
        Ok(result.into())
    }

    fn install(&self, input: InstallChaincodeArgs) -> Result<InstallChaincodeResult, StepError> {
        let id = self.runtime.install(input.chaincode_install_package).map_err(|error| {
            let text = with_causes(&error);
            StepError::Refused(match error {
                InstallError::Package(_) => format!("could not parse as a chaincode install package: {text}"),
                InstallError::Store(_) => text,
                _ => format!("could not build chaincode: {text}"),
            })
        })?;
        Ok(InstallChaincodeResult { package_id: id.to_string(), label: id.label().to_owned() })
    }

    fn all(&self) -> QueryInstalledChaincodesResult {
        let mut references = self.references();
        let installed_chaincodes = self
            .runtime
            .packages()
            .list()
            .into_iter()
            .map(|id| query_installed_chaincodes_result::InstalledChaincode {
                package_id: id.to_string(),
                label: id.label().to_owned(),
                references: references
                    .remove(&id)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(channel, chaincodes)| (channel, list_references(chaincodes)))
                    .collect(),
            })
            .collect();
        QueryInstalledChaincodesResult { installed_chaincodes }
    }

    fn one(&self, input: &QueryInstalledChaincodeArgs) -> Result<QueryInstalledChaincodeResult, StepError> {
        let missing = || {
            StepError::NotFound(format!("could not find chaincode with package id '{}'", input.package_id))
        };
        let id = PackageId::parse(&input.package_id).map_err(|_: PackageError| missing())?;
        if !self.runtime.packages().contains(&id) {
            return Err(missing());
        }
        let references = self.references().remove(&id).unwrap_or_default();
        Ok(QueryInstalledChaincodeResult {
            package_id: id.to_string(),
            label: id.label().to_owned(),
            references: references
                .into_iter()
                .map(|(channel, chaincodes)| {
                    let chaincodes = chaincodes
                        .into_iter()
                        .map(|(name, version)| query_installed_chaincode_result::Chaincode { name, version })
                        .collect();
                    (channel, query_installed_chaincode_result::References { chaincodes })
                })
                .collect(),
        })
    }

    fn package(
        &self,
        input: &GetInstalledChaincodePackageArgs,
    ) -> Result<GetInstalledChaincodePackageResult, StepError> {
        let missing = || {
            StepError::NotFound(format!(
                "could not load cc install package: chaincode install package '{}' not found",
                input.package_id
            ))
        };
        let id = PackageId::parse(&input.package_id).map_err(|_: PackageError| missing())?;
        let package = self.runtime.packages().load(&id).map_err(|error| match error {
            StoreError::NotInstalled(_) => missing(),
            other => {
                StepError::Refused(format!("could not load cc install package: {}", with_causes(&other)))
            }
        })?;
        Ok(GetInstalledChaincodePackageResult { chaincode_install_package: package })
    }

    /// What uses each package, over all channels. A channel that cannot be read is left out and logged.
    fn references(&self) -> BTreeMap<PackageId, References> {
        let mut references: BTreeMap<PackageId, References> = BTreeMap::new();
        for channel in self.channels.list() {
            let snapshot = channel.ledger().snapshot();
            match sources::runnable(&snapshot, self.runtime.packages(), self.msp_id.as_str()) {
                Ok(runnable) => {
                    for (package, definitions) in runnable {
                        let used = |definition: Definition| (definition.name, definition.version);
                        let chaincodes = definitions.into_iter().map(used).collect();
                        references.entry(package).or_default().insert(channel.id().to_string(), chaincodes);
                    }
                }
                Err(error) => {
                    tracing::error!(channel = %channel.id(), error = %with_causes(&error), "definitions cannot be read");
                }
            }
        }
        references
    }
}

fn list_references(chaincodes: Vec<(String, String)>) -> query_installed_chaincodes_result::References {
    let chaincodes = chaincodes
        .into_iter()
        .map(|(name, version)| query_installed_chaincodes_result::Chaincode { name, version })
        .collect();
    query_installed_chaincodes_result::References { chaincodes }
}
