//! The walk-through of sealed data: a patient's record, granted to another hospital, read, revoked.

use std::time::Instant;

use anyhow::{Context, bail};
use consort_client_sdk::sealed::{
    About, Error, Filter, Granted, Offer, Opened, Party, PublicKey, Record, RecordName, Suite, Validity,
};
use consort_protos::consort::sealed::record::Content;

use super::audit::{Told, party_words};
use super::grants::grant_words;
use super::records::record_words;
use super::session::{SECRET_FILE, Session};
use crate::access::Access;
use crate::layout::{ADMINISTRATOR, MemberKind};
use crate::report::count;
use crate::topology::Organisation;

/// How many blocks the grant lasts.
const BLOCKS: u64 = 10;

/// How many proxies must answer.
const THRESHOLD: u16 = 2;

/// What the first hospital knows about its patient.
const PATIENT: &str = "Jana Novak, born 1984: blood group 0-, allergic to penicillin, pacemaker since 2025";

/// Walks through sealed data on a network that runs; the steps are numbered from 3.
///
/// # Errors
/// The first step that does not come out as it should.
pub(crate) async fn run(access: &Access) -> anyhow::Result<()> {
    let [hospital, other_hospital, .., stranger] = access.topology.organisations.as_slice() else {
        bail!("the walk-through of sealed data needs three organisations");
    };
    let (owner, reader) = (caller(access, hospital).await?, caller(access, other_hospital).await?);
    let suffix = format!("{:08x}", rand::random::<u32>());
    let (domain, grant) = (format!("patients-{suffix}"), format!("grant-{suffix}"));

    println!("\n3. Which peers serve as proxies: each holds a share of the right to read, none can read");
    proxies(&owner).await?;

    println!("\n4. {} seals a patient's record", user(hospital));
    let record = seal(&owner, &domain).await?;

    println!("\n5. {} grants it to {} for {BLOCKS} blocks", user(hospital), user(other_hospital));
    let reader_key = reader.reader_key(Suite::P256)?;
    let began = Instant::now();
    let granted =
        give(&owner, &grant, &record, reader.sealed.party().clone(), reader_key.public_key()).await?;
    wait_for(&reader, &granted).await?;

    println!("\n6. {} reads it", user(other_hospital));
    let request = read(&reader, &grant, &record).await?;
    println!("  {} ms after the owner began to grant it", began.elapsed().as_millis());

    println!("\n7. {} tries to read it, too", user(stranger));
    refused(caller(access, stranger).await?.sealed.request(&grant, &record).await)?;

    println!("\n8. {} revokes the grant", user(hospital));
    let revoked = owner.sealed.revoke(&grant, "the patient was discharged").await?;
    println!("  committed in block {}: every proxy that comes to it erases its share", revoked.block);

    println!("\n9. {} asks again", user(other_hospital));
    wait_for(&reader, &revoked.tx_id).await?;
    refused(reader.sealed.request(&grant, &record).await)?;
    println!("  Even the request that was answered before is answered no more:");
    match reader.sealed.open(&request, &reader_key).await {
        Err(Error::TooFewAnswers { missing, .. }) => {
            missing.iter().for_each(|missing| println!("    {missing}"));
        }
        Err(error) => return Err(error.into()),
        Ok(_) => bail!("proxies answered after the revocation"),
    }

    println!("\n10. The audit trail, which every member of the channel sees");
    audit(&owner, &record).await
}

fn user(organisation: &Organisation) -> String {
    let name = organisation.member.users.first().map_or(ADMINISTRATOR, String::as_str);
    format!("{name}@{}", organisation.member.domain)
}

/// An organisation's first user, with a keyring of its own, through its own peer.
async fn caller(access: &Access, organisation: &Organisation) -> anyhow::Result<Session> {
    let member = &organisation.member;
    let name = member.users.first().map_or(ADMINISTRATOR, String::as_str);
    let gateway = access.gateway_of(member, name).await?;
    let folder = access.layout.user(MemberKind::Peers, &member.domain, name);
    Session::new(access, &gateway, folder.join(SECRET_FILE))
}

async fn proxies(owner: &Session) -> anyhow::Result<()> {
    let described = owner.sealed.describe_proxies().await;
    for (peer, description) in &described {
        match description {
            Ok(_) => println!(
                "  {} ({}) has signed who it is, and its key for shares",
                peer.address(),
                peer.msp_id()
            ),
            Err(missing) => println!("  {missing}"),
        }
    }
    let able = described.iter().filter(|(_, description)| description.is_ok()).count();
    anyhow::ensure!(able > usize::from(THRESHOLD), "the walk-through needs three proxies, and {able} serve");
    Ok(())
}

async fn seal(owner: &Session, domain: &str) -> anyhow::Result<RecordName> {
    let key = owner.domain_key(Suite::P256, domain)?;
    let created = owner.sealed.create_domain(domain, &key, "patients of the walk-through").await?;
    println!(
        "  domain {domain} in block {}: its key is no identity's, and serves nothing else",
        created.block
    );
    let record = owner.sealed.seal(domain, "jana-novak", PATIENT.as_bytes()).await?;
    println!("  record {} in block {}", record_words(&record.name), record.committed.block);
    let Record { capsule, content, .. } = owner.sealed.record(&record.name).await?;
    let Some(Content::Ciphertext(ciphertext)) = content else { bail!("the record has no ciphertext") };
    println!(
        "  what every peer has: a capsule of {} bytes, and {} encrypted bytes:",
        capsule.len(),
        ciphertext.len()
    );
    println!("    {}...", hex::encode(&ciphertext[..ciphertext.len().min(32)]));
    Ok(record.name)
}

/// Returns the grant's transaction.
async fn give(
    owner: &Session,
    grant: &str,
    record: &RecordName,
    reader: Party,
    reader_key: PublicKey,
) -> anyhow::Result<String> {
    let not_after_block = owner.sealed.height().await? + BLOCKS;
    let offer = Offer {
        filter: Filter { keys: vec![record.key.clone()], ..Filter::default() },
        validity: Validity { not_after_block, ..Validity::default() },
        ..Offer::new(grant, &record.domain, reader, reader_key, THRESHOLD)
    };
    let key = owner.domain_key(Suite::P256, &record.domain)?;
    let granted: Granted = owner.sealed.grant(&key, &offer).await?;
    grant_words(&offer, &granted).iter().for_each(|line| println!("  {line}"));
    println!(
        "  the shares went to the proxies directly, each sealed to its proxy; on the ledger are commitments to them"
    );
    Ok(granted.committed.tx_id)
}

/// Returns the request.
async fn read(reader: &Session, grant: &str, record: &RecordName) -> anyhow::Result<String> {
    let requested = reader.sealed.request(grant, record).await?;
    println!("  the request is recorded first: transaction {}, block {}", requested.request, requested.block);
    let key = reader.reader_key(Suite::P256)?;
    let opened: Opened = reader.sealed.open(&requested.request, &key).await?;
    println!(
        "  {} answered, each with a proof that its answer is right: {}",
        count(opened.proxies.len(), "proxy"),
        opened.proxies.join(", ")
    );
    let plaintext = std::str::from_utf8(&opened.plaintext).context("the record is no text")?;
    anyhow::ensure!(plaintext == PATIENT, "the record reads otherwise than it was sealed");
    println!("  opened: {plaintext}");
    Ok(requested.request)
}

fn refused<T>(outcome: Result<T, Error>) -> anyhow::Result<()> {
    match outcome {
        Ok(_) => bail!("the request should have been refused"),
        Err(Error::Call(consort_client_sdk::Error::Refused { refusal, .. })) => {
            println!("  refused, because no peer endorses the request:");
            let details =
                refusal.details.iter().map(|detail| format!("{}: {}", detail.msp_id, detail.message));
            let mut details: Vec<String> = details.collect();
            if details.is_empty() {
                details.push(refusal.message.clone());
            }
            details.iter().for_each(|detail| println!("    {detail}"));
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Waits until the caller's own peer has a transaction: it may be a moment behind.
async fn wait_for(session: &Session, tx_id: &str) -> anyhow::Result<()> {
    session.sealed.network().commit_status(tx_id).await?.into_valid()?;
    Ok(())
}

async fn audit(owner: &Session, record: &RecordName) -> anyhow::Result<()> {
    let entries = owner.sealed.audit(About::Record(record.clone())).await?;
    println!("  about {}, owned by {}", record_words(record), party_words(Some(owner.sealed.party())));
    for entry in &entries {
        Told::new(entry)?.lines().iter().for_each(|line| println!("  {line}"));
    }
    anyhow::ensure!(
        entries.iter().any(|entry| !entry.requests.is_empty()),
        "the audit trail does not show the request"
    );
    Ok(())
}
