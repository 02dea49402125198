//! Granting and revoking.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use consort_client_sdk::sealed::{Error, Filter, Granted, Offer, Party, PublicKey, Suite, Validity};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::session::{ReaderCard, SealedOptions, Session};
use super::waiting::delivery_words;
use crate::report::count;

#[derive(Debug, Args)]
pub(crate) struct GrantOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// Id of the grant, new on the channel: 1 to 64 of A-Z a-z 0-9 . _ -
    grant: String,

    /// The caller's domain
    domain: String,

    /// What `consort sealed whoami --output json` printed for the reader
    #[arg(long, value_name = "FILE")]
    reader: PathBuf,

    /// How many proxies must answer
    #[arg(long, value_name = "NUMBER")]
    threshold: u16,

    /// A peer that becomes a proxy, by its host or host:port; all that are named must be able to (repeatable) [default: all peers with the
    /// role that answer now]
    #[arg(long = "proxy", value_name = "HOST")]
    proxies: Vec<String>,

    /// Only this record, in every version (repeatable) [default: all of the domain]
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,

    /// Only records whose key begins so (repeatable)
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,

    /// How many blocks after its own the grant lasts [default: until it is revoked]
    #[arg(long, value_name = "NUMBER")]
    blocks: Option<u64>,

    /// Until when the grant lasts, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<OffsetDateTime>,

    /// How many requests may be made [default: any number]
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    uses: u64,
}

#[derive(Debug, Args)]
pub(crate) struct RevokeOptions {
    #[command(flatten)]
    common: SealedOptions,

    /// The grant
    grant: String,

    /// Why, for the books
    #[arg(long, default_value = "")]
    reason: String,
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be a time such as 2027-01-31T00:00:00Z".to_owned())
}

fn timestamp(moment: OffsetDateTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: moment.unix_timestamp(),
        nanos: i32::try_from(moment.nanosecond()).unwrap_or_default(),
    }
}

/// The reader and its key of a suite, out of its card.
fn reader(card: &ReaderCard, suite: Suite) -> anyhow::Result<(Party, PublicKey)> {
    let key = match suite {
        Suite::P256 => &card.p256,
        Suite::Sm2 => &card.sm2,
    };
    let key = PublicKey::from_bytes(suite, &hex::decode(key)?)?;
    Ok((Party { msp_id: card.msp_id.clone(), id: card.id.clone() }, key))
}

/// `consort sealed grant`.
///
/// # Errors
/// Too few proxies; those of the transaction.
pub(super) async fn grant(options: &GrantOptions) -> anyhow::Result<()> {
    let GrantOptions { common, grant, domain, .. } = options;
    let path = options.reader.display();
    let card = std::fs::read(&options.reader).with_context(|| format!("cannot read {path}"))?;
    let card: ReaderCard = serde_json::from_slice(&card).with_context(|| {
        format!(
            "{path} is not what `consort sealed whoami --output json` prints; let the reader make it again"
        )
    })?;
    let session = common.open().await?;
    let suite = session.suite(domain).await?;
    let (party, key) = reader(&card, suite)
        .with_context(|| format!("the key in {path} is no key of suite {}", suite.name()))?;
    let not_after_block = match options.blocks {
        Some(blocks) => session.sealed.height().await?.saturating_add(blocks),
        None => 0,
    };
    let validity =
        Validity { not_after_block, not_after: options.until.map(timestamp), ..Validity::default() };
    let offer = Offer {
        filter: Filter { keys: options.keys.clone(), prefixes: options.prefixes.clone() },
        validity,
        uses_max: options.uses,
        proxies: options.proxies.iter().map(|name| session.proxy_address(name)).collect::<Result<_, _>>()?,
        ..Offer::new(grant, domain, party, key, options.threshold)
    };
    let granted = give(&session, suite, &offer).await?;
    let delivery = &granted.delivery;
    let acknowledged: Vec<&String> = delivery.delivered.iter().map(|(share, _)| &share.address).collect();
    let words = |missing: &[_]| missing.iter().map(ToString::to_string).collect::<Vec<String>>();
    let undelivered: Vec<String> =
        delivery.undelivered.iter().map(|(_, missing)| missing.to_string()).collect();
    let json = json!({
        "grant": grant, "transaction": granted.committed.tx_id, "block": granted.committed.block,
        "receipts": acknowledged.len(), "acknowledged": acknowledged, "undelivered": undelivered,
        "left_out": words(&granted.left_out), "threshold": options.threshold, "not_after_block": not_after_block,
    });
    common.output.print(&json, || grant_words(&offer, &granted).join("\n"))?;
    anyhow::ensure!(
        acknowledged.len() >= usize::from(options.threshold),
        "fewer proxies than the threshold have taken their shares, so that nobody can read under grant {grant} yet.\n\
         Remedy: run `consort sealed deliver {grant}` when the proxies answer; their shares are kept until then."
    );
    Ok(())
}

/// Puts a grant on the ledger and hands its shares over. They are kept on the disk first: a process that ends in between, or a proxy
/// that does not answer, costs none.
async fn give(session: &Session, suite: Suite, offer: &Offer) -> anyhow::Result<Granted> {
    let waiting = session.waiting(&offer.grant)?;
    let prepared = session.sealed.prepare_grant(&session.domain_key(suite, &offer.domain)?, offer).await?;
    let shares = prepared.shares.clone();
    waiting.add(&shares)?;
    let granted = match session.sealed.put_grant(prepared).await {
        Ok(granted) => granted,
        Err(error) if is_never_on_the_ledger(&error) => {
            waiting.forget(&shares)?;
            return Err(error.into());
        }
        Err(error) => {
            let grant = &offer.grant;
            return Err(anyhow::Error::new(error).context(format!(
                "whether grant {grant} is on the ledger is not known; its shares are kept.\n\
                 Remedy: look with `consort sealed audit --grant {grant}`; if it is there, run `consort sealed deliver {grant}`"
            )));
        }
    };
    waiting.keep(&granted.delivery)?;
    Ok(granted)
}

/// Whether a grant's transaction has failed for good: refused by endorsers, or invalid in its block.
fn is_never_on_the_ledger(error: &Error) -> bool {
    use consort_client_sdk::Error as Call;
    matches!(error, Error::Call(Call::Refused { call: "endorse", .. } | Call::Invalid { .. }))
}

/// What a grant came to, line by line.
pub(super) fn grant_words(offer: &Offer, granted: &Granted) -> Vec<String> {
    let mut lines = vec![format!("grant {} committed in block {}", offer.grant, granted.committed.block)];
    if offer.validity.not_after_block != 0 {
        lines.push(format!("it lasts until block {}", offer.validity.not_after_block));
    }
    let delivery = &granted.delivery;
    let shares = delivery.delivered.len() + delivery.undelivered.len();
    lines.push(format!(
        "{} of {} checked their shares and signed for them; {} must answer",
        delivery.delivered.len(),
        count(shares, "proxy"),
        offer.threshold
    ));
    lines.extend(delivery_words(&offer.grant, delivery));
    lines.extend(
        granted.left_out.iter().map(|missing| format!("left out, without a share of this grant: {missing}")),
    );
    lines
}

/// `consort sealed revoke`.
///
/// # Errors
/// Those of the transaction.
pub(super) async fn revoke(options: &RevokeOptions) -> anyhow::Result<()> {
    let RevokeOptions { common, grant, reason } = options;
    let committed = common.open().await?.sealed.revoke(grant, reason).await?;
    let json = json!({ "grant": grant, "transaction": committed.tx_id, "block": committed.block });
    common.output.print(&json, || {
        format!(
            "grant {grant} revoked in block {}: no proxy answers any more; what was read is known",
            committed.block
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readers_card_gives_the_key_of_the_domains_suite() {
        let key = "026b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296".to_owned();
        let card = ReaderCard {
            msp_id: "BMSP".to_owned(),
            id: "x509::b::ca".to_owned(),
            p256: key,
            sm2: "zz".to_owned(),
        };
        let (party, key) = reader(&card, Suite::P256).unwrap();
        assert_eq!((party.msp_id.as_str(), key.suite()), ("BMSP", Suite::P256));
        assert!(reader(&card, Suite::Sm2).is_err());
    }

    #[test]
    fn a_time_is_read_with_its_offset() {
        assert_eq!(timestamp(moment("1970-01-01T01:00:00.5+01:00").unwrap()).seconds, 0);
        assert!(moment("tomorrow").unwrap_err().contains("such as 2027"));
    }
}
