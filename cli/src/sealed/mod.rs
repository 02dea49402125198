//! `consort sealed`: records whose readers are chosen later.

mod audit;
mod demo;
mod grants;
mod reading;
mod records;
mod session;
mod waiting;

use clap::Subcommand;

pub(crate) use demo::run as demo;

/// Sealed data: seal records, grant them to readers through proxies, read, revoke, audit
#[derive(Debug, Subcommand)]
pub(crate) enum SealedCommand {
    /// Show who the caller is in grants, and the key to be granted to: the reader gives this to the owner
    #[command(
        after_help = "Example:\n  consort sealed whoami --as User1@riverside.example.com --output json > riverside.json"
    )]
    Whoami(session::SealedOptions),
    /// Show the peers that may serve as proxies, and whether they do now
    #[command(after_help = "Example:\n  consort sealed proxies")]
    Proxies(session::SealedOptions),
    /// Create a domain of the caller's: records under one key
    #[command(
        after_help = "Example:\n  consort sealed domain st-anna --description \"records of St. Anna's\" --as User1@stanna.example.com"
    )]
    Domain(records::DomainOptions),
    /// Seal a record as the next version of its key
    #[command(
        after_help = "Examples:\n  consort sealed seal st-anna patient-17 --text \"blood group 0-\" --as User1@stanna.example.com\n  consort sealed seal st-anna scan-17 --file scan.dcm --elsewhere s3://scans/17 --ciphertext-to scan.sealed"
    )]
    Seal(records::SealOptions),
    /// List the records of a domain
    #[command(after_help = "Example:\n  consort sealed list st-anna")]
    List(records::ListOptions),
    /// Show a record of the caller's own domain
    #[command(
        after_help = "Example:\n  consort sealed show st-anna patient-17 --as User1@stanna.example.com"
    )]
    Show(records::ShowOptions),
    /// Grant records to a reader: as many of the proxies as the threshold says must agree to each reading
    #[command(
        after_help = "Example:\n  consort sealed grant g1 st-anna --reader riverside.json --threshold 2 --key patient-17 --blocks 10 --as User1@stanna.example.com"
    )]
    Grant(grants::GrantOptions),
    /// Hand the shares of a grant over to the proxies that have not signed for them yet; it may be repeated
    #[command(after_help = "Example:\n  consort sealed deliver g1 --as User1@stanna.example.com")]
    Deliver(waiting::DeliverOptions),
    /// Revoke a grant: from then on no proxy answers
    #[command(
        after_help = "Example:\n  consort sealed revoke g1 --reason \"treatment ended\" --as User1@stanna.example.com"
    )]
    Revoke(grants::RevokeOptions),
    /// Read a record under a grant: request it on the ledger, and open it
    #[command(
        after_help = "Example:\n  consort sealed read g1 st-anna patient-17 --as User1@riverside.example.com"
    )]
    Read(reading::ReadOptions),
    /// Request a record on the ledger, without opening it
    #[command(
        after_help = "Example:\n  consort sealed request g1 st-anna patient-17 --as User1@riverside.example.com"
    )]
    Request(reading::RequestOptions),
    /// Open the record of a request that is on the ledger; it may be repeated
    #[command(after_help = "Example:\n  consort sealed open 5dd4c3a4...e1 --as User1@riverside.example.com")]
    Open(reading::OpenOptions),
    /// Tell who could read what, when; who did; by whose leave
    #[command(
        after_help = "Examples:\n  consort sealed audit --record st-anna/patient-17\n  consort sealed audit --grant g1 --output json\n  consort sealed audit --granted-to-me"
    )]
    Audit(audit::AuditOptions),
}

/// Runs a `consort sealed` command.
///
/// # Errors
/// What the network or a proxy answers, with cause and remedy.
pub(crate) async fn run(command: SealedCommand) -> anyhow::Result<()> {
    match command {
        SealedCommand::Whoami(options) => session::whoami(&options).await,
        SealedCommand::Proxies(options) => session::proxies(&options).await,
        SealedCommand::Domain(options) => records::domain(&options).await,
        SealedCommand::Seal(options) => records::seal(&options).await,
        SealedCommand::List(options) => records::list(&options).await,
        SealedCommand::Show(options) => records::show(&options).await,
        SealedCommand::Grant(options) => grants::grant(&options).await,
        SealedCommand::Deliver(options) => waiting::deliver(&options).await,
        SealedCommand::Revoke(options) => grants::revoke(&options).await,
        SealedCommand::Read(options) => reading::read(&options).await,
        SealedCommand::Request(options) => reading::request(&options).await,
        SealedCommand::Open(options) => reading::open(&options).await,
        SealedCommand::Audit(options) => audit::run(&options).await,
    }
}
