//! Results for people or for programs.

use std::io::{ErrorKind, Write};

use clap::{Args, ValueEnum};
use serde_json::Value;

/// The form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// The option that chooses the form.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Output {
    /// Form of the result
    #[arg(long = "output", value_enum, default_value_t = Form::Text)]
    form: Form,
}

impl Output {
    /// Prints one of many results; in JSON, one document per line.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn print_line(self, json: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.form {
            Form::Text => line(&text()),
            Form::Json => line(&serde_json::to_string(json)?),
        }
        Ok(())
    }

    /// Prints a result in the chosen form.
    ///
    /// # Errors
    /// None in practice: JSON values serialise.
    pub(crate) fn print(self, json: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.form {
            Form::Text => {
                let text = text();
                if !text.is_empty() {
                    line(&text);
                }
            }
            Form::Json => line(&serde_json::to_string_pretty(json)?),
        }
        Ok(())
    }
}

/// Writes lines to standard output. Whoever reads them may stop (`| head`); then there is nothing left to do.
///
/// # Panics
/// Standard output cannot be written for another reason.
pub(crate) fn line(text: &str) {
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => panic!("standard output cannot be written: {error}"),
    }
}
