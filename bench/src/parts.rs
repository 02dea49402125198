//! What is measured, in which order, and one run of it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use consort_bench::{Figure, Limit, OUT};

use crate::programs::Programs;

/// One benchmark program.
#[derive(Debug)]
pub(crate) struct Part {
    /// Name of the benchmark.
    pub(crate) name: &'static str,
    /// Heading of its figures.
    pub(crate) title: &'static str,
}

/// All parts in the order in which they run; first what the others are compared with.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "limits", title: "What this machine can do" },
    Part { name: "known_signers", title: "Cryptography" },
    Part { name: "aggregates", title: "Endorsements together" },
    Part { name: "sealed_data", title: "Sealed data" },
    Part { name: "policy", title: "Policies" },
    Part { name: "enroll", title: "Certificates" },
    Part { name: "commit", title: "Version check and commit" },
    Part { name: "reads", title: "Point reads" },
    Part { name: "replay", title: "Replay" },
    Part { name: "invoke", title: "Invocation" },
    Part { name: "ordering", title: "Ordering" },
    Part { name: "gateway", title: "Evaluate" },
    Part { name: "network", title: "What a person waits for" },
    Part { name: "load", title: "End to end" },
    Part { name: "private", title: "Private data" },
    Part { name: "sealed_reading", title: "Reading sealed data" },
];

/// Arguments of every program: criterion's benchmarks measure each thing this long, the others know none of them.
const ARGUMENTS: &[&str] = &["--bench", "--noplot", "--warm-up-time", "0.5", "--measurement-time", "2"];

/// What a part found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) part: &'static Part,
    pub(crate) figures: Vec<Figure>,
    pub(crate) took: Duration,
    /// Whether the program ended with an error; its figures up to there are kept.
    pub(crate) failed: bool,
}

/// Where a run keeps what its parts write.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) folder: &'a Path,
}

impl Run<'_> {
    /// Runs a part, its output going where this program's goes.
    ///
    /// # Errors
    /// The part is not built or cannot be started, or its figures cannot be read.
    pub(crate) fn part(&self, part: &'static Part, programs: &Programs) -> Result<Found> {
        std::fs::create_dir_all(self.folder)?;
        let (out, criterion) = (self.folder.join(part.name), self.folder.join("criterion"));
        for stale in [&out, &criterion] {
            if stale.exists() {
                let removed =
                    if stale.is_dir() { std::fs::remove_dir_all(stale) } else { std::fs::remove_file(stale) };
                removed.with_context(|| format!("cannot remove {}", stale.display()))?;
            }
        }
        println!("\n=== {} ({})", part.title, part.name);
        let program = programs.of(part.name)?;
        let begun = Instant::now();
        let status = Command::new(&program.executable)
            .args(ARGUMENTS)
            .current_dir(&program.folder)
            .env(OUT, &out)
            .env("CRITERION_HOME", &criterion)
            .status()
            .with_context(|| format!("cannot run {}", program.executable.display()))?;
        let figures = if out.exists() { consort_bench::read(&out)? } else { Vec::new() };
        let took = begun.elapsed();
        println!("({} took {:.0} s)", part.name, took.as_secs_f64());
        Ok(Found { part, figures, took, failed: !status.success() })
    }
}

/// Looks up the limits that are figures of another part; a limit that was not measured goes.
pub(crate) fn fill_limits(found: &mut [Found]) {
    let known: Vec<Figure> = found.iter().flat_map(|found| found.figures.clone()).collect();
    for figure in found.iter_mut().flat_map(|found| &mut found.figures) {
        let Some(Limit { name, value: None }) = &figure.limit else { continue };
        let other = known.iter().find(|other| other.name == *name && other.unit == figure.unit);
        figure.limit = other.map(|other| Limit { name: name.clone(), value: Some(other.value) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_another_part_is_looked_up_and_one_in_another_unit_goes() {
        let figures = vec![
            Figure::new("calls", 8.0, "/s").against("empty calls"),
            Figure::new("time", 8.0, "ms").against("empty calls"),
            Figure::new("own", 8.0, "ms").limit("alone", 4.0),
        ];
        let limits = vec![Figure::new("empty calls", 16.0, "/s")];
        let of = |index: usize, figures| Found {
            part: &PARTS[index],
            figures,
            took: Duration::ZERO,
            failed: false,
        };
        let mut found = [of(1, figures), of(0, limits)];
        fill_limits(&mut found);
        let values: Vec<Option<f64>> = found[0]
            .figures
            .iter()
            .map(|figure| figure.limit.as_ref().and_then(|limit| limit.value))
            .collect();
        assert_eq!(values, [Some(16.0), None, Some(4.0)]);
    }
}
