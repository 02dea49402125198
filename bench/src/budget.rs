//! Instructions that must not become more: counted by valgrind's callgrind, compared with `.ci/instructions.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::programs::Programs;

/// The benchmark whose parts are counted.
pub(crate) const PROGRAM: &str = "instructions";

/// The file of budgets.
const FILE: &str = ".ci/instructions.toml";

/// What the budget file says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// By how many percent a part may exceed its budget; random signatures alone move it by about one.
    over_percent: f64,
    /// Instructions of one call by part.
    instructions: BTreeMap<String, u64>,
}

/// One part's instructions.
#[derive(Debug, Clone)]
pub(crate) struct Count {
    pub(crate) part: String,
    pub(crate) instructions: u64,
    pub(crate) budget: u64,
    pub(crate) exceeds: bool,
}

/// What was counted; empty when it was not asked for or valgrind is missing.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) counts: Vec<Count>,
    /// Why nothing was counted.
    pub(crate) missing: Option<&'static str>,
}

impl Counted {
    /// Says loudly what exceeds its budget. Returns whether something does.
    pub(crate) fn report(&self) -> bool {
        let mut text = String::new();
        for count in self.counts.iter().filter(|count| count.exceeds) {
            let more = 100.0 * (ratio(count.instructions, count.budget) - 1.0);
            let (part, now, before) = (&count.part, count.instructions, count.budget);
            let _ = writeln!(text, "  {part}: {now} instructions a call, budget {before} ({more:+.1} %)");
        }
        if text.is_empty() {
            return false;
        }
        eprintln!(
            "INSTRUCTION BUDGET EXCEEDED\n{text}\
             Look for what a change added: `make bench-compare BASE=<commit> PARTS={PROGRAM}` finds the commit,\n\
             and callgrind_annotate on the files callgrind.* of the bench folder of compiled files finds the place.\n\
             If the work is wanted, or the compiler is another one, `.ci/bench accept` takes these counts into {FILE}:\n\
             commit that file with the reason."
        );
        true
    }
}

fn ratio(value: u64, to: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a few milliseconds")]
    let ratio = value as f64 / to.max(1) as f64;
    ratio
}

fn read(path: &Path) -> Result<Budget> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is no budget", path.display()))
}

fn has_valgrind() -> bool {
    let version =
        Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Counts every part of the budget.
///
/// # Errors
/// The budget cannot be read, or a part does not run.
pub(crate) fn count(programs: &Programs) -> Result<Counted> {
    println!("\n=== Instructions ({PROGRAM})");
    if !has_valgrind() {
        let missing = "valgrind is missing: `.ci/setup bench` installs it";
        eprintln!("Instructions are not counted: {missing}");
        return Ok(Counted { missing: Some(missing), ..Counted::default() });
    }
    let budget = read(Path::new(FILE))?;
    let mut counts = Vec::new();
    for (part, &allowed) in &budget.instructions {
        let instructions = of(part, programs)?;
        println!("{part:<40} {instructions:>12} instructions a call, budget {allowed}");
        let exceeds = ratio(instructions, allowed) > 1.0 + budget.over_percent / 100.0;
        counts.push(Count { part: part.clone(), instructions, budget: allowed, exceeds });
    }
    Ok(Counted { counts, missing: None })
}

/// Writes what is counted now over the numbers of the budget file, and keeps its other lines.
///
/// # Errors
/// As [`count`]; or valgrind is missing, or the file cannot be written.
pub(crate) fn accept(programs: &Programs) -> Result<()> {
    let counted = count(programs)?;
    ensure!(counted.missing.is_none(), "there is nothing to accept");
    let text = std::fs::read_to_string(FILE)?;
    std::fs::write(FILE, with_counts(&text, &counted.counts))?;
    println!("{FILE} holds these counts now");
    Ok(())
}

fn with_counts(text: &str, counts: &[Count]) -> String {
    let line = |line: &str| {
        let part = line.split_once('=').map_or("", |(name, _)| name.trim());
        match counts.iter().find(|count| count.part == part) {
            Some(count) => format!("{part} = {}\n", count.instructions),
            None => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

/// Instructions of one call of a part.
///
/// # Errors
/// The program or valgrind fails.
pub(crate) fn of(part: &str, programs: &Programs) -> Result<u64> {
    let program = programs.of(PROGRAM)?;
    let out = crate::scratch()?.join(format!("callgrind.{part}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_work*", "--collect-atstart=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(&program.executable)
        .arg(part)
        .current_dir(&program.folder)
        .output()
        .context("cannot run valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{part} does not run under valgrind:\n{said}");
    let calls: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().with_context(|| {
        format!("the benchmark {PROGRAM} has no part {part}: take it out of {FILE}, or name it as the benchmark does")
    })?;
    let text = std::fs::read_to_string(&out).with_context(|| format!("cannot read {}", out.display()))?;
    let all = total(&text).with_context(|| format!("{} holds no sum", out.display()))?;
    ensure!(
        all > 0,
        "callgrind counted nothing for {part}: were the functions below `counted_work` inlined?"
    );
    Ok(all / calls.max(1))
}

/// The parts of the budget.
///
/// # Errors
/// The budget cannot be read.
pub(crate) fn parts() -> Result<Vec<String>> {
    Ok(read(Path::new(FILE))?.instructions.into_keys().collect())
}

/// The sum of a callgrind file (Valgrind's manual, "Callgrind Format Specification").
fn total(text: &str) -> Option<u64> {
    let line =
        text.lines().rev().find_map(|line| line.strip_prefix("totals:").or(line.strip_prefix("summary:")))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_counts_replace_numbers_and_keep_the_rest() {
        let count = Count { part: "hash".to_owned(), instructions: 7, budget: 5, exceeds: true };
        let text = "# why\nover_percent = 5\n\n[instructions]\nhash = 5\nother = 9\n";
        assert_eq!(with_counts(text, &[count]), text.replace("hash = 5", "hash = 7"));
    }

    #[test]
    fn the_sum_of_a_callgrind_file_is_read() {
        assert_eq!(total("# callgrind format\nevents: Ir\nfn=(1) main\n1 20\ntotals: 4711\n"), Some(4711));
        assert_eq!(total("events: Ir\n"), None);
    }
}
