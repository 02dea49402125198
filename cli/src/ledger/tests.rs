//! The commands on the books of a real Fabric channel, whose codes stand in its blocks.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Parser;
use consort_ledger::{Ledger, ValidatedBlock};
use consort_protos::fabric::common::Block;
use consort_protos::fabric::protos::TxValidationCode;
use consort_protos::transaction::Transaction;
use prost::Message;

use super::{LedgerCommand, run};

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: LedgerCommand,
}

fn golden(number: u64) -> Block {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join(format!("../protos/tests/golden/fabric-channel/blocks/{number:04}.pb"));
    Block::decode(Bytes::from(std::fs::read(path).expect("a block"))).expect("a block")
}

/// A peer's data folder with the first blocks of the channel.
fn peer(height: u64) -> tempfile::TempDir {
    let data = tempfile::tempdir().expect("a folder");
    let genesis = golden(0);
    let name = consort_protos::block::channel_id(&genesis).expect("a channel");
    std::fs::create_dir(data.path().join("channels")).expect("made");
    let ledger = Ledger::create(&data.path().join("channels").join(name), &genesis).expect("a ledger");
    for number in 1..height {
        let block = golden(number);
        let transactions = consort_protos::block::envelopes(&block)
            .iter()
            .map(|envelope| Transaction::open(envelope.clone()).ok().map(Into::into))
            .collect();
        let codes = consort_protos::block::flags(&block).expect("codes").iter();
        let codes = codes.map(|flag| TxValidationCode::try_from(i32::from(*flag)).expect("a code")).collect();
        ledger.commit(ValidatedBlock::new(block, transactions, codes).expect("judged")).expect("committed");
    }
    data
}

fn consort(arguments: &[&str]) -> anyhow::Result<()> {
    let command = Line::try_parse_from([&["ledger"], arguments].concat())?.command;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(command))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn a_peers_books_are_verified_counted_and_exported() {
    let data = peer(40);
    consort(&["verify", text(data.path())]).expect("the books are right");
    consort(&["stat", text(data.path()), "--output", "json"]).expect("counted");
    let file = data.path().join("block.pb");
    consort(&["export-block", text(data.path()), "30", "--file", text(&file)]).expect("exported");
    let exported = Block::decode(Bytes::from(std::fs::read(file).expect("written"))).expect("a block");
    assert_eq!(exported, golden(30));
    let beyond = consort(&["export-block", text(data.path()), "40"]).expect_err("no such block");
    assert!(beyond.to_string().contains("its height is 40"), "{beyond}");
}

#[test]
fn two_peers_are_compared() {
    let (first, second, shorter) = (peer(12), peer(12), peer(5));
    consort(&["compare", text(first.path()), text(second.path())]).expect("equal");
    consort(&["compare", text(first.path()), text(shorter.path())]).expect("equal as far as both go");
}

#[test]
fn what_cannot_be_opened_is_explained() {
    let empty = tempfile::tempdir().expect("a folder");
    let error = consort(&["stat", text(empty.path())]).expect_err("no channels");
    assert!(error.to_string().contains("data folder"), "{error}");
    let data = peer(2);
    let error = consort(&["stat", text(data.path()), "--channel", "other"]).expect_err("another channel");
    assert!(error.to_string().contains("joined the channel"), "{error}");
    let channels = std::fs::read_dir(data.path().join("channels")).expect("readable");
    let name = channels.last().expect("one").expect("readable").file_name().into_string().expect("UTF-8");
    let id = consort_protos::ids::ChannelId::parse(&name).expect("a channel");
    let _running = Ledger::open(&data.path().join("channels").join(&name), &id).expect("opens");
    let error = consort(&["verify", text(data.path())]).expect_err("in use");
    assert!(error.to_string().contains("stop it first"), "{error}");
}
