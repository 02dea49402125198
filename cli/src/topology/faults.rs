//! What is wrong with a topology file: every fault with its line, in the order of the file.

use std::fmt;
use std::path::PathBuf;

/// One thing that is wrong, or doubtful, on one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    /// Line of the file, from 1.
    pub(crate) line: usize,
    /// Cause and, where it is not obvious, remedy.
    pub(crate) message: String,
    /// A warning does not stop the network from being started.
    pub(crate) warning: bool,
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    /// Notes an error.
    pub(crate) fn error(&mut self, line: usize, message: impl Into<String>) {
        self.0.push(Fault { line, message: message.into(), warning: false });
    }

    /// Notes a warning.
    pub(crate) fn warning(&mut self, line: usize, message: impl Into<String>) {
        self.0.push(Fault { line, message: message.into(), warning: true });
    }

    /// All faults as noted.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }

    /// Whether nothing at all was noted.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Splits into what stops the network (as one error) and what is only worth saying.
    ///
    /// # Errors
    /// [`InvalidTopology`] with every error when there is at least one.
    pub(crate) fn into_result(mut self, file: PathBuf) -> Result<Vec<String>, InvalidTopology> {
        self.0.sort();
        let (warnings, errors): (Vec<Fault>, Vec<Fault>) =
            self.0.into_iter().partition(|fault| fault.warning);
        if !errors.is_empty() {
            return Err(InvalidTopology { file, faults: errors });
        }
        let describe = |fault: &Fault| format!("{}:{}: {}", file.display(), fault.line, fault.message);
        Ok(warnings.iter().map(describe).collect())
    }
}

/// The topology file cannot be used; says why, line by line.
#[derive(Debug)]
pub(crate) struct InvalidTopology {
    /// The file.
    pub(crate) file: PathBuf,
    /// Every error in it, by line.
    pub(crate) faults: Vec<Fault>,
}

impl std::error::Error for InvalidTopology {}

impl fmt::Display for InvalidTopology {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = if self.faults.len() == 1 { "one fault" } else { "faults" };
        match self.faults.len() {
            1 => writeln!(formatter, "the topology has {faults}:")?,
            count => writeln!(formatter, "the topology has {count} {faults}:")?,
        }
        for fault in &self.faults {
            writeln!(formatter, "  {}:{}: {}", self.file.display(), fault.line, fault.message)?;
        }
        write!(formatter, "Nothing was started. Correct the file and run the command again.")
    }
}
