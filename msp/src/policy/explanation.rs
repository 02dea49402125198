//! Why a policy is not satisfied, as a tree for people.

use std::fmt;

/// Notes kept per branch; more signers than that help nobody to understand a refusal.
const MAX_NOTES: usize = 16;

/// Branches kept per gate, for the same reason.
const MAX_BRANCHES: usize = 64;

/// One requirement, whether it is met, what happened to each signer, and the requirements below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What is demanded, in words.
    pub requirement: String,
    /// Whether it is met.
    pub satisfied: bool,
    /// Who met it, or why each signer did not count.
    pub notes: Vec<String>,
    /// The parts of a gate.
    pub branches: Vec<Explanation>,
}

impl Explanation {
    pub(crate) fn leaf(requirement: String, satisfied: bool) -> Self {
        Self { requirement, satisfied, notes: Vec::new(), branches: Vec::new() }
    }

    pub(crate) fn gate(requirement: String, satisfied: bool, mut branches: Vec<Explanation>) -> Self {
        let dropped = branches.len().saturating_sub(MAX_BRANCHES);
        branches.truncate(MAX_BRANCHES);
        let notes = if dropped > 0 { vec![format!("and {dropped} more")] } else { Vec::new() };
        Self { requirement, satisfied, notes, branches }
    }

    pub(crate) fn prefix(&mut self, name: &str) {
        self.requirement = format!("{name}: {}", self.requirement);
    }

    pub(crate) fn add_notes(&mut self, notes: impl IntoIterator<Item = String>) {
        let room = MAX_NOTES.saturating_sub(self.notes.len());
        self.notes.extend(notes.into_iter().take(room));
    }

    fn print(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let mark = if self.satisfied { "[met]" } else { "[unmet]" };
        write!(f, "{indent}{mark} {}", self.requirement)?;
        for note in &self.notes {
            write!(f, "\n{indent}  - {note}")?;
        }
        for branch in &self.branches {
            f.write_str("\n")?;
            branch.print(f, depth + 1)?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.print(f, 0)
    }
}
