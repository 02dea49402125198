//! Peers as discovery shows them: the records of Fabric's gossip, filled from the membership exchange.
//!
//! The records carry no signatures: clients do not check them, and the statements that this peer did check are signed in
//! another form (`consort.peer.Membership`).

use bytes::Bytes;
use consort_crypto::hash::sha256;
use consort_protos::fabric::discovery::Peer;
use consort_protos::fabric::gossip::{
    self, AliveMessage, Chaincode, Envelope, GossipMessage, PeerTime, Properties, StateInfo, gossip_message,
};
use consort_protos::fabric::msp::SerializedIdentity;
use prost::Message;

use crate::gateway::Member;

/// A peer with its state in a channel.
pub(super) fn in_channel(member: &Member, channel: &str) -> Peer {
    let mut peer = of_process(member);
    let pki_id = pki_id(&member.identity);
    let mac = sha256(&[&pki_id[..], channel.as_bytes()].concat());
    let chaincode = |(name, version): &(String, String)| Chaincode {
        name: name.clone(),
        version: version.clone(),
        metadata: Bytes::new(),
    };
    let state = StateInfo {
        timestamp: Some(time(member)),
        pki_id,
        channel_mac: Bytes::copy_from_slice(&mac),
        properties: Some(Properties {
            ledger_height: member.height,
            left_channel: false,
            chaincodes: member.chaincodes.iter().map(chaincode).collect(),
        }),
    };
    peer.state_info =
        Some(envelope(gossip_message::Tag::ChanOrOrg, gossip_message::Content::StateInfo(state)));
    peer
}

/// A peer without any channel's state.
pub(super) fn of_process(member: &Member) -> Peer {
    let alive = AliveMessage {
        membership: Some(gossip::Member {
            endpoint: member.endpoint.clone(),
            metadata: Bytes::new(),
            pki_id: pki_id(&member.identity),
        }),
        timestamp: Some(time(member)),
        identity: Bytes::new(),
    };
    Peer {
        state_info: None,
        membership_info: Some(envelope(gossip_message::Tag::Empty, gossip_message::Content::AliveMsg(alive))),
        identity: member.identity.clone(),
    }
}

fn time(member: &Member) -> PeerTime {
    PeerTime { inc_num: member.incarnation_ms, seq_num: member.sequence }
}

fn envelope(tag: gossip_message::Tag, content: gossip_message::Content) -> Envelope {
    let message = GossipMessage { nonce: 0, channel: Bytes::new(), tag: tag.into(), content: Some(content) };
    Envelope { payload: message.encode_to_vec().into(), signature: Bytes::new(), secret_envelope: None }
}

/// SHA-256 of the MSP id and the certificate as it stands in the identity (Fabric `internal/pkg/peer/gossip/mcs.go`);
/// empty for an identity that does not parse.
fn pki_id(identity: &Bytes) -> Bytes {
    SerializedIdentity::decode(identity.clone()).map_or_else(
        |_| Bytes::new(),
        |identity| Bytes::copy_from_slice(&sha256(&[identity.mspid.as_bytes(), &identity.id_bytes].concat())),
    )
}
