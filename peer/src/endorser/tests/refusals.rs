//! Proposals that come late, early, twice, with an expired certificate, or too many at a time.

use consort_protos::fabric::protos::endorser_server::Endorser as _;
use tonic::Code;

use super::*;
use crate::endorser::EndorserService;

/// Longer than any certificate of the test network lasts.
const AGES: Duration = Duration::from_secs(3_000 * 366 * 24 * 3600);

#[tokio::test]
async fn a_clock_may_differ_by_the_window_and_no_more_in_either_direction() {
    let network = Network::new(&[]);
    let peer = Peer::new(&network, &network.org1);
    let at = |seconds: i64| {
        let mut parts = parts(&peer.client, CHANNEL, "qscc", vec!["GetChainInfo".into(), CHANNEL.into()]);
        parts.timestamp.seconds = seconds;
        sign(&peer.client, parts)
    };
    for seconds in [NOW - 900, NOW + 900] {
        assert_eq!(peer.call(&at(seconds)).await.response.unwrap().status, 200, "{seconds} s");
    }
    for seconds in [NOW - 901, NOW + 901, i64::MIN, i64::MAX] {
        let refused = peer.endorser.process(&at(seconds).message).await.unwrap_err();
        let EndorserError::Unavailable(text) = refused else { panic!("{refused:?}") };
        assert!(text.starts_with("request unauthorized due to incorrect timestamp"), "{text}");
    }
}

#[tokio::test]
async fn an_expired_client_may_not_propose() {
    let network = Network::new(&[]);
    let peer = Peer::new(&network, &network.org1);
    peer.clock.advance(AGES);
    let mut parts = parts(&peer.client, CHANNEL, "basic", vec!["Run".into()]);
    parts.timestamp.seconds += i64::try_from(AGES.as_secs()).unwrap();
    let refused = peer.endorser.process(&sign(&peer.client, parts).message).await.unwrap_err();
    assert_eq!(refused, EndorserError::Unavailable("proposal client identity expired".to_owned()));
}

/// Fabric judges a chain a second after its certificate's own begin, whatever the clock says (`msp/mspimplvalidate.go`): an authority that
/// issues ahead of time, or whose clock is fast, locks nobody out. TLS goes by the clock.
#[tokio::test]
async fn a_client_whose_certificate_counts_from_next_year_on_is_a_member_already_as_in_fabric() {
    let network = Network::new(&[]);
    let peer = Peer::new(&network, &network.org1);
    let early = network.org1.client_from(2_028);
    let signed = proposal(&early, CHANNEL, "qscc", &[b"GetChainInfo", CHANNEL.as_bytes()]);
    assert_eq!(peer.call(&signed).await.response.unwrap().status, 200);
}

#[tokio::test]
async fn a_proposal_whose_transaction_is_committed_is_refused_when_it_is_replayed() {
    let mut consortium = Consortium::new();
    consortium.deploy("writer", &writer()).await;
    let signed = proposal(&consortium.one.client, CHANNEL, "writer", &[b"Write"]);
    // Twice before it is committed does no harm: both answers belong to one transaction.
    consortium.one.call(&signed).await;
    assert_eq!(consortium.submit(&signed, true).await, TxValidationCode::Valid);
    let refused = consortium.one.endorser.process(&signed.message).await.unwrap_err();
    let EndorserError::Invalid(text) = refused else { panic!("{refused:?}") };
    assert!(text.starts_with("duplicate transaction found ["), "{text}");
}

#[tokio::test]
async fn more_proposals_than_can_be_answered_in_time_are_turned_away_with_a_pause() {
    let network = Network::new(&[]);
    let peer = Peer::new(&network, &network.org1);
    let clock = Arc::clone(&peer.clock);
    let fine = proposal(&peer.client, CHANNEL, "qscc", &[b"GetChainInfo", CHANNEL.as_bytes()]);
    let endorser = Arc::new(peer.endorser);
    let open = EndorserService::new(Arc::clone(&endorser), Arc::clone(&clock) as _);
    open.process_proposal(tonic::Request::new(fine.message.clone())).await.unwrap();
    let full = EndorserService::with_places(endorser, 0, clock);
    let refused = full.process_proposal(tonic::Request::new(fine.message)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("the endorser has more requests"), "{refused}");
    assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
}
