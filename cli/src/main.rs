//! The program `consort`.

use std::process::ExitCode;

fn main() -> ExitCode {
    consort_cli::run()
}
