//! Calls of the system chaincode `_sealed`.

use std::sync::Arc;

use bytes::Bytes;
use consort_ledger::TxSimulator;
use consort_protos::fabric::protos::{ChaincodeEvent, Response};

use super::{Accepted, Endorser, Executed, SYSTEM_VERSION, blocking, finished};
use crate::sealed::SEALED;
use crate::sealed::audit::ASKING_FUNCTIONS;
use crate::sealed::books::Refusal;
use crate::sealed::chaincode::{self, Answer, Call, WRITING_FUNCTIONS};

/// Status of a call that succeeded.
const STATUS_DONE: i32 = 200;
/// Status of a caller who may not.
const STATUS_FORBIDDEN: i32 = 403;

impl Endorser {
    pub(super) async fn execute_sealed(&self, accepted: &Accepted) -> Result<Executed, String> {
        let proposal = &accepted.proposal;
        let channel = accepted.channel.as_ref().ok_or_else(|| format!("{SEALED} is called on a channel"))?;
        let bundle = channel.bundle();
        if !bundle.application().capabilities.sealed_data() {
            return Err(format!(
                "channel {} has no sealed data: its application capabilities lack {}",
                proposal.channel,
                consort_channel_config::SEALED_DATA
            ));
        }
        if let Err(response) = self.may_call_sealed(accepted, &bundle) {
            return Ok(Executed::system(response));
        }
        let host = Arc::new(self.host(accepted, channel));
        let running = Arc::clone(&host);
        let creator = Arc::clone(&accepted.creator);
        let (arguments, tx_id) = (proposal.input.args.clone(), proposal.tx_id.clone());
        let timestamp = proposal.timestamp.unwrap_or_default();
        let called = blocking(move || {
            let block = running.snapshot().height().get();
            running.simulate("INVOKE_CHAINCODE", |simulator: &mut TxSimulator| {
                let arguments = &arguments[..];
                let call =
                    Call { bundle: &bundle, creator: &creator, arguments, tx_id: &tx_id, timestamp, block };
                Ok(chaincode::invoke(&call, simulator))
            })
        })
        .await?
        .map_err(|error| error.to_string())?;
        let simulation = finished(&host)?;
        Ok(match called {
            Err(refusal) => Executed::system(refused(refusal)),
            Ok(Answer { payload, event }) => Executed {
                response: Response { status: STATUS_DONE, message: String::new(), payload },
                version: SYSTEM_VERSION.to_owned(),
                event: event.map(|(name, payload)| ChaincodeEvent {
                    chaincode_id: SEALED.to_owned(),
                    tx_id: proposal.tx_id.clone(),
                    event_name: name.to_owned(),
                    payload,
                }),
                simulation: Some((simulation, host)),
            },
        })
    }

    fn may_call_sealed(
        &self,
        accepted: &Accepted,
        bundle: &consort_channel_config::ChannelBundle,
    ) -> Result<(), Response> {
        let (function, _) = chaincode::function(&accepted.proposal.input.args).map_err(refused)?;
        if !WRITING_FUNCTIONS.contains(&function) && !ASKING_FUNCTIONS.contains(&function) {
            return Err(refused(Refusal::unknown(format!("{SEALED} has no function {function:?}"))));
        }
        self.surroundings.access.channel(bundle, &format!("{SEALED}/{function}"), &accepted.creator).map_err(
            |reason| Response {
                status: STATUS_FORBIDDEN,
                message: format!("access denied for [{SEALED}/{function}]: {reason}"),
                payload: Bytes::new(),
            },
        )
    }
}

fn refused(refusal: Refusal) -> Response {
    Response { status: refusal.status, message: refusal.text, payload: Bytes::new() }
}
