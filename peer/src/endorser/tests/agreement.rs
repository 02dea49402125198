//! Who has to endorse a definition: the channel's policy, and a majority of the organisations where the channel has none.

use consort_protos::fabric::common::{ConfigGroup, ImplicitMetaPolicy, Policy, implicit_meta_policy, policy};
use consort_protos::fabric::protos::Endorsement;

use super::*;

const POLICY: &str = "LifecycleEndorsement";

fn application(root: &mut ConfigGroup) -> &mut ConfigGroup {
    root.groups.get_mut("Application").unwrap()
}

/// A channel whose configuration was altered, with approvals of both organisations: what becomes of the definition's commit when these
/// endorse it.
async fn outcome(
    alter: impl FnOnce(&mut ConfigGroup),
    endorse: impl AsyncFnOnce(&Consortium, &Signed) -> Vec<ProposalResponse>,
) -> TxValidationCode {
    let mut consortium = Consortium::of(Network::altered(&[], alter));
    consortium.approve("writer", &writer()).await;
    let commit = lifecycle(&consortium.one.admin, "CommitChaincodeDefinition", &commit_arguments("writer"));
    let responses = endorse(&consortium, &commit).await;
    let code = consortium.commit(envelope(&commit, &responses)).await;
    let defined = !consortium.one.endorser.chaincodes(&consortium.one.channel).is_empty();
    assert_eq!(defined, code == TxValidationCode::Valid);
    code
}

async fn first_peer(consortium: &Consortium, commit: &Signed) -> Vec<ProposalResponse> {
    vec![consortium.one.call(commit).await]
}

async fn both_peers(consortium: &Consortium, commit: &Signed) -> Vec<ProposalResponse> {
    vec![consortium.one.call(commit).await, consortium.two.call(commit).await]
}

/// The first organisation's peer, and a member of the second one that is no peer.
async fn peer_and_member(consortium: &Consortium, commit: &Signed) -> Vec<ProposalResponse> {
    let first = consortium.one.call(commit).await;
    let member = &consortium.network.org2.client;
    let endorser = member.serialized().clone();
    let signature = member.sign(&preimage::endorsement(&first.payload, &endorser)).unwrap().into();
    let second = ProposalResponse { endorsement: Some(Endorsement { endorser, signature }), ..first.clone() };
    vec![first, second]
}

#[tokio::test]
async fn a_channel_without_a_policy_for_definitions_needs_a_member_of_more_than_half_of_its_organisations() {
    let without = |root: &mut ConfigGroup| {
        application(root).policies.remove(POLICY).unwrap();
    };
    assert_eq!(outcome(without, first_peer).await, TxValidationCode::EndorsementPolicyFailure);
    assert_eq!(outcome(without, both_peers).await, TxValidationCode::Valid);
    assert_eq!(outcome(without, peer_and_member).await, TxValidationCode::Valid);
}

#[tokio::test]
async fn a_channels_policy_for_definitions_counts_where_there_is_one() {
    // The test network's own: a peer of each organisation.
    let unchanged = |_: &mut ConfigGroup| {};
    assert_eq!(outcome(unchanged, peer_and_member).await, TxValidationCode::EndorsementPolicyFailure);
    assert_eq!(outcome(unchanged, both_peers).await, TxValidationCode::Valid);

    let any = |root: &mut ConfigGroup| {
        let rule = ImplicitMetaPolicy {
            sub_policy: "Readers".to_owned(),
            rule: implicit_meta_policy::Rule::Any.into(),
        };
        let value = rule.encode_to_vec().into();
        let policy = Policy { r#type: policy::PolicyType::ImplicitMeta.into(), value };
        application(root).policies.get_mut(POLICY).unwrap().policy = Some(policy);
    };
    assert_eq!(outcome(any, first_peer).await, TxValidationCode::Valid);
}
