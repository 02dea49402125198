//! Checking the policies of a topology: their paths, their text, the organisations that they mention.

use std::collections::BTreeSet;

use super::super::section::Located;
use super::{Reader, principals};

impl Reader<'_> {
    /// A path such as `Application/Endorsement`, `Orderer/BlockValidation`, `Admins` or `Application/Org1/Writers`.
    pub(super) fn check_policy_path(&mut self, path: &Located<String>) {
        let parts: Vec<&str> = path.value.split('/').collect();
        let known = matches!(
            parts.as_slice(),
            [_] | ["Application" | "Orderer", _] | ["Application" | "Orderer", _, _]
        );
        if !known || parts.iter().any(|part| part.is_empty()) {
            let message = format!(
                "policy '{}' must be <policy>, Application/<policy>, Orderer/<policy> or Application/<organisation>/<policy>",
                path.value
            );
            self.faults.error(path.line, message);
        }
    }

    /// `ANY|ALL|MAJORITY <policy>` or a signature policy.
    pub(super) fn check_rule(&mut self, owner: &str, rule: &Located<String>) {
        let words: Vec<&str> = rule.value.split_whitespace().collect();
        if !matches!(words.as_slice(), ["ANY" | "ALL" | "MAJORITY", _]) {
            self.check_signature_policy(owner, rule);
        }
    }

    /// Checks a signature policy's text and remembers the MSP ids in it.
    pub(super) fn check_signature_policy(&mut self, owner: &str, text: &Located<String>) {
        match consort_msp::policy::parse(&text.value) {
            Ok(policy) => {
                for msp_id in principals::msp_ids(&policy) {
                    self.mentioned.push((owner.to_owned(), Located { value: msp_id, line: text.line }));
                }
            }
            Err(error) => {
                let cause = error.to_string();
                let cause = cause.lines().next().unwrap_or_default();
                self.faults.error(text.line, format!("{owner}: the policy does not parse: {cause}"));
            }
        }
    }

    pub(super) fn check_mentions(&mut self, known: &BTreeSet<&str>) {
        for (owner, msp_id) in &self.mentioned {
            if !known.contains(msp_id.value.as_str()) {
                let known: Vec<&str> = known.iter().copied().collect();
                let message = format!(
                    "{owner}: no organisation has the MSP id '{}' (known are: {})",
                    msp_id.value,
                    known.join(", ")
                );
                self.faults.error(msp_id.line, message);
            }
        }
    }
}
