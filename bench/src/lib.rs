//! What a benchmark says beside its printed lines: figures that a program can collect.
//!
//! Owns the allocator of benchmarks, which is that of the servers, and the form of a figure: one JSON object per line, appended to the file that `CONSORT_BENCH_OUT` names (without it nothing is
//! written, so a benchmark that is run alone only prints). Knows no other crate of ours, so that each of them may measure itself.
//!
//! ```text
//!  a benchmark -> Figure -> file of lines -> consort-bench (the program beside this library) -> table, docs/performance.md, bench.json
//! ```
//!
//! Always: a figure has a name that no other figure of a run has, and what it is compared with was measured in the same run.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Benchmarks allocate as the servers do, Rust and C++ alike: every program that reports a figure links this.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Names the file that figures are appended to.
pub const OUT: &str = "CONSORT_BENCH_OUT";

/// One measured value, what is wanted of it, and what the machine could do at best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What is measured; the same words in every run, so that runs can be compared.
    pub name: String,
    /// The measured value.
    pub value: f64,
    /// Its unit, such as `us` or `tx/s`.
    pub unit: String,
    /// Less than this is too little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// More than this is too much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// What the value is a multiple of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// What the machine takes for the part of the work that cannot be left out, measured in the same run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// What that part is, or the name of another figure.
    pub name: String,
    /// Its value in the figure's unit; `None` when another figure holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
}

impl Figure {
    /// A figure that nothing is wanted of yet.
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Self { name: name.into(), value, unit: unit.into(), at_least: None, at_most: None, limit: None }
    }

    /// Less than this is too little.
    #[must_use]
    pub fn at_least(self, wanted: f64) -> Self {
        Self { at_least: Some(wanted), ..self }
    }

    /// More than this is too much.
    #[must_use]
    pub fn at_most(self, wanted: f64) -> Self {
        Self { at_most: Some(wanted), ..self }
    }

    /// Compared with a limit in the same unit.
    #[must_use]
    pub fn limit(self, name: impl Into<String>, value: f64) -> Self {
        Self { limit: Some(Limit { name: name.into(), value: Some(value) }), ..self }
    }

    /// Compared with another figure of the run, in the same unit.
    #[must_use]
    pub fn against(self, name: impl Into<String>) -> Self {
        Self { limit: Some(Limit { name: name.into(), value: None }), ..self }
    }

    /// Whether the value is as wanted; `None` when nothing is wanted.
    #[must_use]
    pub fn is_reached(&self) -> Option<bool> {
        if self.at_least.is_none() && self.at_most.is_none() {
            return None;
        }
        let enough = self.at_least.is_none_or(|least| self.value >= least);
        Some(enough && self.at_most.is_none_or(|most| self.value <= most))
    }

    /// Appends the figure to the file that [`OUT`] names, if it names one.
    ///
    /// # Panics
    /// The file cannot be written: a figure that is lost silently would be missing in a table that looks whole.
    pub fn record(&self) {
        if let Some(path) = std::env::var_os(OUT) {
            self.append(Path::new(&path));
        }
    }

    fn append(&self, path: &Path) {
        let line = serde_json::to_string(self).expect("invariant: a figure holds text and numbers");
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        assert!(written.is_ok(), "the figure cannot be written to {}: {written:?}", path.display());
    }
}

/// The figures of a file, the last one of each name.
///
/// # Errors
/// The file cannot be read, or a line is no figure.
pub fn read(path: &Path) -> std::io::Result<Vec<Figure>> {
    let mut figures: Vec<Figure> = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        let figure: Figure = serde_json::from_str(line)?;
        match figures.iter_mut().find(|known| known.name == figure.name) {
            Some(known) => *known = figure,
            None => figures.push(figure),
        }
    }
    Ok(figures)
}

/// What criterion found for benchmarks of this process, in seconds each, by their full ids (`group/function/value`); `None` outside of
/// a collected run. Criterion keeps its results below the folder that `CRITERION_HOME` names.
///
/// # Panics
/// The run is collected and criterion has no result of that name.
#[must_use]
pub fn criterion<const N: usize>(ids: [&str; N]) -> Option<[f64; N]> {
    std::env::var_os(OUT)?;
    let home = std::env::var_os("CRITERION_HOME")?;
    Some(ids.map(|id| {
        estimate(Path::new(&home), id).unwrap_or_else(|| panic!("criterion has no result named {id}")) / 1e9
    }))
}

/// Folders below criterion's: group, function, value, "new".
const CRITERION_DEPTH: usize = 5;

fn estimate(home: &Path, id: &str) -> Option<f64> {
    let mut folders = vec![(home.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let read = |name: &str| -> Option<serde_json::Value> {
            serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok()
        };
        if folder.ends_with("new") && read("benchmark.json").is_some_and(|found| found["full_id"] == id) {
            // The median: a machine that does something else for a moment moves the mean.
            return read("estimates.json")?["median"]["point_estimate"].as_f64();
        }
        if depth < CRITERION_DEPTH {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders
                .extend(entries.filter(|entry| entry.path().is_dir()).map(|entry| (entry.path(), depth + 1)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_they_were_written_and_the_last_of_a_name_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures");
        Figure::new("rate", 1.0, "/s").append(&path);
        let limited = Figure::new("cost", 3.0, "us").at_most(2.0).limit("one check", 1.5);
        limited.append(&path);
        let last = Figure::new("rate", 2.0, "/s").at_least(1.5).against("another rate");
        last.append(&path);
        assert_eq!(read(&path).unwrap(), [last, limited]);
    }

    #[test]
    fn a_figure_is_reached_when_it_is_on_the_right_side_of_what_is_wanted() {
        let figure = Figure::new("any", 5.0, "us");
        assert_eq!(figure.is_reached(), None);
        assert_eq!(figure.clone().at_most(5.0).is_reached(), Some(true));
        assert_eq!(figure.clone().at_most(4.9).is_reached(), Some(false));
        assert_eq!(figure.clone().at_least(5.0).is_reached(), Some(true));
        assert_eq!(figure.at_least(5.1).is_reached(), Some(false));
    }

    #[test]
    fn a_result_of_criterion_is_found_by_its_full_id() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("a group/work/P-256/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("benchmark.json"), r#"{"full_id":"a group/work/P-256"}"#).unwrap();
        fs::write(new.join("estimates.json"), r#"{"median":{"point_estimate":1250.0}}"#).unwrap();
        assert_eq!(estimate(folder.path(), "a group/work/P-256"), Some(1250.0));
        assert_eq!(estimate(folder.path(), "a group/work"), None);
    }
}
