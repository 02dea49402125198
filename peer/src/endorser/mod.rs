//! The endorser: takes a signed proposal, executes it, and vouches for the result (Fabric `core/endorser`).
//!
//! [`checks`] says whether a proposal may be executed at all. System chaincodes answer by themselves; an application's
//! chaincode runs in its sandbox over [`host`], which records what it reads and writes. [`answer`] turns the result into bytes
//! that every honest endorser produces alike, and signs them, alone and (with [`cosign`]) for an aggregate; [`interest`] tells a gateway whose policies the
//! transaction touches.
//!
//! What always holds: nothing is endorsed but what was executed here, over one snapshot; everything that differs between
//! peers stays out of the signed bytes; before the endorsement leaves, private writes are durable in the transient store and with as many
//! other members' peers as their collections require.

mod access;
mod answer;
mod checks;
mod cosign;
mod host;
mod interest;
mod sealed;
mod service;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use self::access::Access;
pub use self::service::EndorserService;
use bytes::Bytes;
use consort_crypto::preimage::SALT_SECRET;
use consort_ledger::{Simulation, TxSimulator};
use consort_msp::{Identity, SigningIdentity};
use consort_node::Clock;
use consort_node::renewal::Current;
use consort_protos::fabric::protos::{ChaincodeEvent, ProposalResponse, Response, SignedProposal};
use consort_protos::proposal::Proposal;

use self::host::{ChannelHost, Surroundings};
use crate::chaincode::{
    ChaincodeRuntime, Execution, Host, HostError, Invocation, RuntimeError, TransactionContext, WasmRuntime,
};
use crate::channel::ChannelHandle;
use crate::identities::{IDENTITIES, functions};
use crate::lifecycle::{Definition, Installed, LIFECYCLE, LifecycleCall, LifecycleChaincode, sources};
use crate::membership::LocalChaincodes;
use crate::private::{PrivateData, WeakPrivateData, Written};
use crate::registry::{Channels, with_causes};
use crate::sealed::SEALED;
use crate::system::SystemCall;
use crate::system::cscc::{CSCC, Cscc};
use crate::system::qscc::{QSCC, Qscc};

/// Version of system chaincodes in an endorsement.
const SYSTEM_VERSION: &str = "syscc";
/// The only endorsement plugin.
const ENDORSEMENT_PLUGIN: &str = "escc";
/// Key in a chaincode's namespace that says which version was initialised (Fabric `core/chaincode/chaincode_support.go`).
const INITIALIZED_KEY: &str = "\u{0}\u{10FFFF}initialized";
/// Status of a response that is none.
const STATUS_OK: i32 = 200;
/// From this status on a response is a failure and is not endorsed.
const STATUS_REFUSED: i32 = 400;
/// From this status on the failure is the execution's, and the gateway may look at what it did.
const STATUS_FAILED: i32 = 500;

/// Why a proposal was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndorserError {
    /// A filter in front of the endorser turned it away: the time is off, or the certificate has expired. Another peer may not.
    #[error("{0}")]
    Unavailable(String),
    /// The proposal is not valid, or its creator may not propose.
    #[error("{0}")]
    Invalid(String),
}

/// What an endorser is made of.
#[derive(Debug)]
pub struct EndorserParts {
    /// The channels of this peer.
    pub channels: Arc<Channels>,
    /// The installed chaincodes.
    pub runtime: Arc<WasmRuntime>,
    /// Signs endorsements.
    pub signer: Current<SigningIdentity>,
    /// Judges callers.
    pub access: Arc<Access>,
    /// Tells the time that proposals are compared with.
    pub clock: Arc<dyn Clock>,
    /// Largest difference between a proposal's time and this peer's.
    pub time_window: Duration,
}

/// The endorser of one peer. Shared as `Arc`.
#[derive(Debug)]
pub struct Endorser {
    signer: Current<SigningIdentity>,
    clock: Arc<dyn Clock>,
    time_window: Duration,
    surroundings: Surroundings,
    runtime: Arc<WasmRuntime>,
    lifecycle: Arc<LifecycleChaincode>,
    cscc: Arc<Cscc>,
    qscc: Arc<Qscc>,
    /// How private writes reach other peers; set once when the peer is put together, and absent where there are no others.
    private: OnceLock<WeakPrivateData>,
}

/// What an execution is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A transaction.
    Endorse,
    /// The caller's information.
    Evaluate,
}

/// A proposal that may be executed.
struct Accepted {
    proposal: Proposal,
    creator: Arc<Identity>,
    /// None for calls that concern the peer alone.
    channel: Option<Arc<ChannelHandle>>,
}

/// What an execution left.
struct Executed {
    response: Response,
    version: String,
    event: Option<ChaincodeEvent>,
    simulation: Option<(Simulation, Arc<ChannelHost>)>,
}

impl Executed {
    /// The answer of a system chaincode.
    fn system(response: Response) -> Self {
        Self { response, version: SYSTEM_VERSION.to_owned(), event: None, simulation: None }
    }
}

impl Endorser {
    /// Makes the endorser and its system chaincodes.
    #[must_use]
    pub fn new(parts: EndorserParts) -> Self {
        let EndorserParts { channels, runtime, signer, access, clock, time_window } = parts;
        let msp_id = signer.get().msp_id().clone();
        let installed = Installed::new(Arc::clone(&runtime), Arc::clone(&channels), msp_id.clone());
        let lifecycle = LifecycleChaincode::new(installed, Arc::clone(&access), msp_id.clone());
        Self {
            signer,
            clock,
            time_window,
            lifecycle: Arc::new(lifecycle),
            cscc: Arc::new(Cscc::new(Arc::clone(&channels), Arc::clone(&access))),
            qscc: Arc::new(Qscc::new(Arc::clone(&channels), Arc::clone(&access))),
            surroundings: Surroundings { channels, packages: Arc::clone(runtime.packages()), access, msp_id },
            runtime,
            private: OnceLock::new(),
        }
    }

    /// From now on private writes are handed to other peers in this way. The first call counts.
    pub fn distribute_through(&self, private: &PrivateData) {
        let _already = self.private.set(private.downgrade());
    }

    /// Executes a signed proposal and endorses the result. A failure of chaincode or of this peer is a response with a
    /// status; see the module of checks for what is an error.
    ///
    /// # Errors
    /// [`EndorserError`]: the proposal was not executed.
    pub async fn process(&self, signed: &SignedProposal) -> Result<ProposalResponse, EndorserError> {
        self.perform(signed, Purpose::Endorse).await
    }

    /// Executes a signed proposal for its response alone: as [`Endorser::process`], but a success is not signed, what was read
    /// and written is not told, and what was written privately is neither kept nor handed to others: there will be no transaction. For a caller who trusts this peer, such as its own gateway.
    ///
    /// # Errors
    /// [`EndorserError`]: the proposal was not executed.
    pub async fn evaluate(&self, signed: &SignedProposal) -> Result<ProposalResponse, EndorserError> {
        self.perform(signed, Purpose::Evaluate).await
    }

    async fn perform(
        &self,
        signed: &SignedProposal,
        purpose: Purpose,
    ) -> Result<ProposalResponse, EndorserError> {
        let accepted = match self.accept(signed).await? {
            Ok(accepted) => accepted,
            Err(response) => return Ok(response),
        };
        let executed = match self.execute(&accepted, purpose).await {
            Ok(executed) => executed,
            Err(message) => {
                let Proposal { channel, tx_id, chaincode, .. } = &accepted.proposal;
                tracing::warn!(%channel, %tx_id, chaincode = %chaincode.name, %message, "proposal was not executed");
                return Ok(answer::failure(message));
            }
        };
        if purpose == Purpose::Evaluate && executed.response.status < STATUS_REFUSED {
            return Ok(ProposalResponse { response: Some(executed.response), ..ProposalResponse::default() });
        }
        Ok(self.answer(&accepted, executed))
    }

    /// Chaincodes that are defined on the channel and installed here: name and version.
    #[must_use]
    pub fn chaincodes(&self, channel: &ChannelHandle) -> Vec<(String, String)> {
        let Surroundings { packages, msp_id, .. } = &self.surroundings;
        match sources::runnable(&channel.ledger().snapshot(), packages, msp_id.as_str()) {
            Ok(runnable) => {
                let mut chaincodes: Vec<_> = runnable
                    .into_values()
                    .flatten()
                    .map(|definition| (definition.name, definition.version))
                    .collect();
                chaincodes.sort();
                chaincodes
            }
            Err(error) => {
                tracing::error!(channel = %channel.id(), error = %with_causes(&error), "definitions cannot be read");
                Vec::new()
            }
        }
    }

    /// Executes; the error is this peer's, in the words of the response.
    async fn execute(&self, accepted: &Accepted, purpose: Purpose) -> Result<Executed, String> {
        match accepted.proposal.chaincode.name.as_str() {
            LIFECYCLE => self.execute_lifecycle(accepted, purpose).await,
            IDENTITIES => self.execute_identities(accepted).await,
            SEALED => self.execute_sealed(accepted).await,
            name @ (CSCC | QSCC) => self.execute_query(accepted, name).await,
            name => {
                let Some(channel) = &accepted.channel else {
                    return Err(format!(
                        "make sure the chaincode {name} has been successfully defined on channel  and try again: no \
                         channel was named"
                    ));
                };
                self.execute_chaincode(accepted, channel, purpose).await
            }
        }
    }

    async fn execute_query(&self, accepted: &Accepted, name: &str) -> Result<Executed, String> {
        let (cscc, qscc) = (Arc::clone(&self.cscc), Arc::clone(&self.qscc));
        let creator = Arc::clone(&accepted.creator);
        let arguments = accepted.proposal.input.args.clone();
        let is_cscc = name == CSCC;
        let response = blocking(move || {
            let call = SystemCall { creator: &creator, arguments: &arguments };
            if is_cscc { cscc.invoke(&call) } else { qscc.invoke(&call) }
        })
        .await?;
        Ok(Executed::system(response))
    }

    async fn execute_lifecycle(&self, accepted: &Accepted, purpose: Purpose) -> Result<Executed, String> {
        let lifecycle = Arc::clone(&self.lifecycle);
        let creator = Arc::clone(&accepted.creator);
        let arguments = accepted.proposal.input.args.clone();
        let Some(channel) = &accepted.channel else {
            let call = move || {
                lifecycle.invoke(LifecycleCall { creator: &creator, arguments: &arguments, channel: None })
            };
            return blocking(call).await.map(Executed::system);
        };
        let host = Arc::new(self.host(accepted, channel));
        let (running, bundle) = (Arc::clone(&host), channel.bundle());
        let response = blocking(move || {
            running.simulate("INVOKE_CHAINCODE", |simulator: &mut TxSimulator| {
                let channel = Some((bundle.as_ref(), simulator));
                Ok(lifecycle.invoke(LifecycleCall { creator: &creator, arguments: &arguments, channel }))
            })
        })
        .await?
        .map_err(|error| error.to_string())?;
        let simulation = finished(&host)?;
        if purpose == Purpose::Endorse && response.status < STATUS_REFUSED {
            self.keep_private(channel, &host, &accepted.proposal, &simulation)
                .await
                .map_err(|reason| format!("error in simulation: {reason}"))?;
        }
        Ok(Executed {
            response,
            version: SYSTEM_VERSION.to_owned(),
            event: None,
            simulation: Some((simulation, host)),
        })
    }

    async fn execute_identities(&self, accepted: &Accepted) -> Result<Executed, String> {
        let channel = accepted.channel.as_ref().ok_or("no channel was named, and _identities needs one")?;
        let bundle = channel.bundle();
        if !bundle.application().capabilities.registered_identities() {
            return Err(format!(
                "channel {} keeps no table of identities: its application lacks the capability {}",
                bundle.channel(),
                consort_channel_config::REGISTERED_IDENTITIES
            ));
        }
        let creator = Arc::clone(&accepted.creator);
        let arguments = accepted.proposal.input.args.clone();
        let function =
            arguments.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        if functions::READING.contains(&function.as_str()) {
            self.surroundings.access.channel(&bundle, &format!("{IDENTITIES}/{function}"), &creator)?;
        }
        let host = Arc::new(self.host(accepted, channel));
        let running = Arc::clone(&host);
        let answer = blocking(move || {
            running.simulate("INVOKE_CHAINCODE", |simulator: &mut TxSimulator| {
                let call = functions::Call { creator: &creator, arguments: &arguments, bundle: &bundle };
                Ok(functions::perform(&call, simulator))
            })
        })
        .await?
        .map_err(|error| error.to_string())?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Ok(Executed::system(answer::refusal(&error))),
        };
        let event = answer.event.map(|(name, payload)| ChaincodeEvent {
            chaincode_id: IDENTITIES.to_owned(),
            tx_id: accepted.proposal.tx_id.clone(),
            event_name: name.to_owned(),
            payload,
        });
        let response = Response { status: STATUS_OK, message: String::new(), payload: answer.payload };
        let simulation = Some((finished(&host)?, host));
        Ok(Executed { response, version: SYSTEM_VERSION.to_owned(), event, simulation })
    }

    async fn execute_chaincode(
        &self,
        accepted: &Accepted,
        channel: &Arc<ChannelHandle>,
        purpose: Purpose,
    ) -> Result<Executed, String> {
        let proposal = &accepted.proposal;
        let name = &proposal.chaincode.name;
        let host = Arc::new(self.host(accepted, channel));
        let undefined = |reason: String| {
            format!(
                "make sure the chaincode {name} has been successfully defined on channel {} and try again: {reason}",
                proposal.channel
            )
        };
        let definition = host
            .definition(name)
            .map_err(|error| undefined(error.to_string()))?
            .ok_or_else(|| undefined(format!("chaincode {name} not found")))?;
        let in_simulation = |reason: String| {
            format!("error in simulation: failed to execute transaction {}: {reason}", proposal.tx_id)
        };
        let execution = self
            .run(proposal, &definition, &host)
            .await
            .map_err(|error| in_simulation(with_causes(&error)))?;
        let simulation = finished(&host)?;
        let event = execution.event.map(|event| ChaincodeEvent {
            chaincode_id: name.clone(),
            tx_id: proposal.tx_id.clone(),
            event_name: event.name,
            payload: event.payload,
        });
        let response = Response {
            status: execution.response.status,
            message: execution.response.message,
            payload: execution.response.payload,
        };
        if purpose == Purpose::Endorse && response.status < STATUS_REFUSED {
            self.keep_private(channel, &host, proposal, &simulation)
                .await
                .map_err(|reason| format!("error in simulation: {reason}"))?;
        }
        Ok(Executed {
            response,
            version: definition.version.clone(),
            event,
            simulation: Some((simulation, host)),
        })
    }

    async fn run(
        &self,
        proposal: &Proposal,
        definition: &Definition,
        host: &Arc<ChannelHost>,
    ) -> Result<Execution, RuntimeError> {
        let broken = |error: HostError| RuntimeError::Broken(error.to_string());
        if definition.endorsement_plugin != ENDORSEMENT_PLUGIN {
            return Err(RuntimeError::Broken(format!(
                "plugin with name {} could not be used: plugin doesn't exist",
                definition.endorsement_plugin
            )));
        }
        let package = host.package(definition).map_err(broken)?.ok_or_else(|| {
            RuntimeError::Broken(format!(
                "chaincode definition for '{}' exists, but chaincode is not installed",
                definition.name
            ))
        })?;
        check_initialization(proposal, definition, host).map_err(broken)?;
        self.runtime
            .invoke(Invocation {
                chaincode: definition.name.clone(),
                package,
                arguments: proposal.input.args.clone(),
                is_init: proposal.input.is_init,
                allowance: definition.allowance().map_err(RuntimeError::Broken)?,
                host: Arc::clone(host) as Arc<dyn Host>,
            })
            .await
    }

    /// Makes private writes durable here, where this peer's organisation is a member, and hands them to other members' peers.
    async fn keep_private(
        &self,
        channel: &Arc<ChannelHandle>,
        host: &ChannelHost,
        proposal: &Proposal,
        simulation: &Simulation,
    ) -> Result<(), String> {
        if simulation.private.is_empty() {
            return Ok(());
        }
        let tx_id = &proposal.tx_id;
        let undistributed = |reason: String| {
            format!(
                "failed to distribute private collection, txID {tx_id}, channel {}: {reason}",
                proposal.channel
            )
        };
        let (own, height) = (&self.surroundings.msp_id, host.snapshot().height());
        let written = Written::of(channel, host.snapshot(), &simulation.private).map_err(undistributed)?;
        written.check_membership(own)?;
        let (held, ledger, id) = (written.held_by(own), Arc::clone(channel.ledger()), tx_id.clone());
        let stored = async {
            if held.is_empty() {
                return Ok(());
            }
            blocking(move || ledger.transient().put(&id, height, &held)).await?.map_err(|error| {
                format!("failed to store private data of transaction {tx_id}: {}", with_causes(&error))
            })
        };
        let distributed = async {
            match self.private.get() {
                Some(private) => {
                    let private = private.upgrade().ok_or("the peer is stopping")?;
                    private.distribute(channel, tx_id, height.get(), &written).await
                }
                None => written.check_alone(),
            }
        };
        let (stored, distributed) = tokio::join!(stored, distributed);
        distributed.map_err(undistributed)?;
        stored
    }

    fn host(&self, accepted: &Accepted, channel: &Arc<ChannelHandle>) -> ChannelHost {
        let proposal = &accepted.proposal;
        let mut transient = proposal.transient.clone();
        let salt_secret = transient.remove(SALT_SECRET);
        let context = TransactionContext {
            tx_id: proposal.tx_id.clone(),
            channel: proposal.channel.clone(),
            timestamp: proposal.timestamp.unwrap_or_default(),
            transient: Arc::new(transient),
            proposal: proposal.bytes.clone(),
            signature: proposal.signature.clone(),
            binding: channel.bundle().hash_algorithm().hash_parts(&[
                &proposal.nonce,
                &proposal.creator,
                // The epoch, which no proposal uses.
                &0_u64.to_le_bytes(),
            ]),
            peer_msp_id: self.surroundings.msp_id.to_string(),
        };
        let host = ChannelHost::new(
            self.surroundings.clone(),
            channel.bundle(),
            Arc::clone(channel),
            context,
            Arc::clone(&accepted.creator),
            salt_secret,
        );
        if proposal.input.is_init { host.initialising(&proposal.chaincode.name) } else { host }
    }
}

impl LocalChaincodes for Endorser {
    fn chaincodes(&self, channel: &ChannelHandle) -> Vec<(String, String)> {
        Self::chaincodes(self, channel)
    }

    fn installed(&self) -> usize {
        self.surroundings.packages.count()
    }
}

/// Runs what reads the disk away from the threads that serve connections.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("the call ended unexpectedly: {error}"))
}

fn finished(host: &ChannelHost) -> Result<Simulation, String> {
    host.finish().ok_or_else(|| "the simulation has ended".to_owned())
}

/// Holds the order of initialisation: a definition that asks for it is initialised once per version, before anything else.
fn check_initialization(
    proposal: &Proposal,
    definition: &Definition,
    host: &ChannelHost,
) -> Result<(), HostError> {
    let name = &definition.name;
    let already =
        || HostError::Broken(format!("chaincode '{name}' is already initialized but called as init"));
    if !definition.init_required {
        return if proposal.input.is_init { Err(already()) } else { Ok(()) };
    }
    let initialized = host.simulate("INIT", |simulator| simulator.get(name, INITIALIZED_KEY))?;
    let done = initialized.is_some_and(|version| version == definition.version.as_bytes());
    match (done, proposal.input.is_init) {
        (true, true) => Err(already()),
        (false, false) => Err(HostError::Broken(format!(
            "chaincode '{name}' has not been initialized for this version, must call as init first"
        ))),
        (true, false) => Ok(()),
        (false, true) => {
            let version = Bytes::copy_from_slice(definition.version.as_bytes());
            host.simulate("INIT", |simulator| simulator.put(name, INITIALIZED_KEY, version))
        }
    }
}

/// Whether a name belongs to a system chaincode.
fn is_system(name: &str) -> bool {
    matches!(name, LIFECYCLE | IDENTITIES | SEALED | CSCC | QSCC | "lscc" | "escc" | "vscc")
}

#[cfg(test)]
mod tests;
