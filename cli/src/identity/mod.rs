//! `consort identity`: enrol, renew, register and revoke identities, and look at certificates.

mod bls_key;
mod enroll;
mod registry;
mod show;
mod words;

use clap::Subcommand;

pub(crate) use words::described;

/// Identities: enrol, renew, register, revoke, and look at their certificates
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make a key, have it certified by an enrolment secret, and write an MSP folder
    #[command(
        after_help = "Examples:\n  consort identity enroll --id alice --secret-file alice.secret --msp alice/msp\n  consort identity enroll --id peer9.org1.example.com --secret-file peer9.secret --profile tls --host peer9.org1.example.com --host 127.0.0.1 --msp peer9/tls-msp\n  consort identity enroll --ca ca.org1.example.com:7054 --tls-roots tls-ca.pem --id alice --secret-file - --msp alice/msp --key-algorithm ed25519\n  consort identity enroll --id peer9.org1.example.com --secret-file peer9.secret --msp peer9/msp --bls --msp-id Org1MSP"
    )]
    Enroll(enroll::EnrollOptions),
    /// Renew a certificate by itself, before it ends; a running server takes it over
    #[command(
        after_help = "Examples:\n  consort identity reenroll --msp alice/msp\n  consort identity reenroll --cert peer0/tls/server.crt --key peer0/tls/server.key --reuse-key\n  consort identity reenroll --msp peer9/msp --bls --msp-id Org1MSP"
    )]
    Reenroll(enroll::ReenrollOptions),
    /// Make a BLS key, for endorsements that add up, without the authority; `reenroll --bls` has one certified
    #[command(after_help = "Example:\n  consort identity bls-key --msp peer9/msp")]
    BlsKey(bls_key::BlsKeyOptions),
    /// Register an identity; prints the secret by which it can enrol
    #[command(
        after_help = "Examples:\n  consort identity register --id alice\n  consort identity register --id peer9.org1.example.com --type peer --max-enrollments -1\n  consort identity register --id bob --attribute role=auditor:ecert --affiliation org1.department1"
    )]
    Register(registry::RegisterOptions),
    /// Revoke an identity with all its certificates, or one certificate
    #[command(
        after_help = "Examples:\n  consort identity revoke --id alice --reason keycompromise --crl crl.pem\n  consort identity revoke --cert alice/msp/signcerts/cert.pem"
    )]
    Revoke(registry::RevokeOptions),
    /// List the registered identities that the caller has authority over
    #[command(
        after_help = "Examples:\n  consort identity list\n  consort identity list --id alice --output json"
    )]
    List(registry::ListOptions),
    /// Show certificates in words, from a file or an MSP folder
    #[command(
        after_help = "Examples:\n  consort identity show alice/msp\n  consort identity show server.crt --output json"
    )]
    Show(show::ShowOptions),
}

/// Runs one of the commands.
///
/// # Errors
/// What failed, with its cause and what helps.
pub(crate) async fn run(command: IdentityCommand) -> anyhow::Result<()> {
    match command {
        IdentityCommand::Enroll(options) => enroll::enroll(&options).await,
        IdentityCommand::Reenroll(options) => enroll::reenroll(&options).await,
        IdentityCommand::BlsKey(options) => bls_key::make(&options),
        IdentityCommand::Register(options) => registry::register(&options).await,
        IdentityCommand::Revoke(options) => registry::revoke(&options).await,
        IdentityCommand::List(options) => registry::list(&options).await,
        IdentityCommand::Show(options) => show::show(&options),
    }
}
