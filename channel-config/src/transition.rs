//! What may follow what: a new configuration against the old one.
//!
//! Source: Fabric `common/channelconfig` (`Bundle.ValidateNew`).

use consort_protos::ids::MspId;

use crate::{ChannelBundle, ConfigError, bundle::Draft};

/// Checks the step from one configuration to the next. Both are acceptable by themselves.
pub(crate) fn check(old: &ChannelBundle, new: &Draft) -> Result<(), ConfigError> {
    check_hashing(old, new)
        .and_then(|()| check_orderer(old, new))
        .and_then(|()| check_application(old, new))
        .and_then(|()| check_consortiums(old, new))
        .map_err(ConfigError::Transition)
}

/// Block hashes link to each other over a channel's whole life. (Fabric hashes with SHA-256 whatever the name, so that it has no
/// such rule.)
fn check_hashing(old: &ChannelBundle, new: &Draft) -> Result<(), String> {
    let (from, to) = (old.hash_algorithm().channel_name(), new.hash.channel_name());
    if from == to {
        Ok(())
    } else {
        Err(format!("attempted to change the hashing algorithm from {from} to {to}"))
    }
}

fn check_orderer(old: &ChannelBundle, new: &Draft) -> Result<(), String> {
    let old_orderer = old.orderer();
    let Some(new_orderer) = &new.orderer else {
        return Err("current config has orderer section, but new config does not".to_owned());
    };
    let (from, to) = (&old_orderer.consensus_type, &new_orderer.consensus_type);
    if from != to && !old.capabilities().organisation_endpoints() {
        return Err(format!("attempted to change consensus type from {from} to {to}"));
    }
    let old_ids = old_orderer.organisations.iter().map(|member| (member.name.as_str(), &member.msp_id));
    let new_ids: Vec<_> =
        new_orderer.organisations.iter().map(|member| (member.name.as_str(), &member.msp_id)).collect();
    check_ids("orderer", old_ids, &new_ids)
}

fn check_application(old: &ChannelBundle, new: &Draft) -> Result<(), String> {
    let old_application = old.application();
    let Some(new_application) = &new.application else {
        return Err("current config has application section, but new config does not".to_owned());
    };
    let old_ids = old_application.organisations.iter().map(|member| (member.name.as_str(), &member.msp_id));
    let new_ids: Vec<_> =
        new_application.organisations.iter().map(|member| (member.name.as_str(), &member.msp_id)).collect();
    check_ids("application", old_ids, &new_ids)
}

/// An organisation keeps its MSP id for as long as its group exists.
fn check_ids<'a>(
    section: &str,
    old: impl Iterator<Item = (&'a str, &'a MspId)>,
    new: &[(&'a str, &'a MspId)],
) -> Result<(), String> {
    for (name, old_id) in old {
        if let Some((_, new_id)) = new.iter().find(|(other, id)| *other == name && *id != old_id) {
            return Err(format!("{section} org {name} attempted to change MSP ID from {old_id} to {new_id}"));
        }
    }
    Ok(())
}

fn check_consortiums(old: &ChannelBundle, new: &Draft) -> Result<(), String> {
    match (old.has_consortiums(), new.has_consortiums) {
        (false, true) => Err("current config has no consortiums section, but new config does".to_owned()),
        (true, false) => Err("current config has consortiums section, but new config does not".to_owned()),
        _ => Ok(()),
    }
}
