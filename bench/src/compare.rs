//! Two commits measured in turn on the same machine, so that what else it does meets both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use consort_bench::Figure;

use crate::page::short;
use crate::parts::{PARTS, Run};
use crate::programs::Programs;
use crate::{budget, scratch};

/// How often each commit is measured; the median counts.
const TURNS: usize = 3;

/// Parts that are compared when none are named: each takes less than two minutes and together they meet most of the code.
const USUAL: &[&str] = &["known_signers", "policy", "commit", "replay", "invoke", "load", budget::PROGRAM];

/// One of the two commits.
struct Side {
    name: String,
    programs: Programs,
    /// Its servers and tools, which take the place of the other's while it is measured.
    saved: PathBuf,
    figures: Vec<Figure>,
    instructions: BTreeMap<String, u64>,
}

/// A work tree of the older commit, removed again when dropped.
struct WorkTree(PathBuf);

impl WorkTree {
    fn add(commit: &str, path: PathBuf) -> Result<Self> {
        // What an interrupted run has left.
        let stale = Self(path);
        stale.remove();
        let added = git(&["worktree", "add", "--detach", &stale.0.to_string_lossy(), commit]);
        added.with_context(|| format!("cannot check out {commit} at {}", stale.0.display()))?;
        Ok(stale)
    }

    fn remove(&self) {
        let path = self.0.to_string_lossy();
        if self.0.exists() && git(&["worktree", "remove", "--force", &path]).is_err() {
            eprintln!("{path} is left: remove it with `git worktree remove --force {path}`");
        }
    }
}

impl Drop for WorkTree {
    fn drop(&mut self) {
        self.remove();
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).output().context("cannot run git")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Makes all files of a work tree new. Cargo knows a crate by its place below the clone and its age by its files' times, so without this what the other work
/// tree made last would be taken for this one's, as both share the folder of compiled files.
fn touch(tree: &Path) -> Result<()> {
    let listed = Command::new("git").arg("-C").arg(tree).args(["ls-files", "-z"]).output();
    let listed = listed.context("cannot run git")?;
    let names = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    let files = names.split('\0').filter(|name| !name.is_empty());
    let touched = Command::new("touch").current_dir(tree).args(["--no-create", "--"]).args(files).status();
    ensure!(
        touched.context("cannot run touch")?.success(),
        "the files of {} keep their times",
        tree.display()
    );
    Ok(())
}

/// Measures `base` and the present work tree in turn, and prints the ratios.
///
/// # Errors
/// The commit is unknown, does not record figures, or one of the two does not build.
pub(crate) fn compare(base: &str, chosen: &[&str]) -> Result<bool> {
    let named = format!("{base}^{{commit}}");
    let commit = git(&["rev-parse", "--short=12", "--verify", &named]).with_context(|| {
        format!("BASE={base} is no commit of this repository: give a hash, a branch or a tag")
    })?;
    let chosen = if chosen.is_empty() { USUAL } else { chosen };
    let folder = scratch()?;
    let tree = WorkTree::add(&commit, folder.join("base"))?;
    if !tree.0.join("bench/src/lib.rs").exists() {
        bail!("{commit} is older than the benchmarks' figures (the folder bench/): choose a later one");
    }
    let older = Side::build(format!("base {commit}"), &tree.0, chosen, folder.join("base-programs"))?;
    let newer = Side::build("this".to_owned(), Path::new("."), chosen, folder.join("this-programs"))?;
    let mut sides = [older, newer];
    for turn in 1..=TURNS {
        for side in &mut sides {
            println!("\n##### turn {turn} of {TURNS}: {}", side.name);
            side.measure(chosen, &folder.join("compare"), turn == 1)?;
        }
    }
    let [older, newer] = &sides;
    println!("\n{}", table(older, newer));
    newer.place()?;
    for side in &sides {
        std::fs::remove_dir_all(&side.saved)?;
    }
    Ok(true)
}

impl Side {
    fn build(name: String, tree: &Path, chosen: &[&str], saved: PathBuf) -> Result<Self> {
        println!("Building {name} ...");
        touch(tree)?;
        let programs = Programs::build(tree, chosen)?;
        if saved.exists() {
            std::fs::remove_dir_all(&saved)?;
        }
        std::fs::create_dir_all(&saved)?;
        for program in SERVERS {
            let built = built()?.join(program);
            std::fs::hard_link(&built, saved.join(program))
                .with_context(|| format!("cannot keep {}", built.display()))?;
        }
        Ok(Self { name, programs, saved, figures: Vec::new(), instructions: BTreeMap::new() })
    }

    /// Puts this side's programs where benchmarks look for them.
    fn place(&self) -> Result<()> {
        for program in SERVERS {
            let place = built()?.join(program);
            if place.exists() {
                std::fs::remove_file(&place)?;
            }
            std::fs::hard_link(self.saved.join(program), &place)
                .with_context(|| format!("cannot put back {}", place.display()))?;
        }
        Ok(())
    }

    fn measure(&mut self, chosen: &[&str], folder: &Path, first: bool) -> Result<()> {
        self.place()?;
        for part in PARTS.iter().filter(|part| chosen.contains(&part.name)) {
            let found = Run { folder }.part(part, &self.programs)?;
            ensure!(!found.failed, "{} failed at {}: there is nothing to compare", part.name, self.name);
            self.figures.extend(found.figures);
        }
        // Counts of instructions do not depend on what else the machine does: once is enough.
        if first && chosen.contains(&budget::PROGRAM) {
            for part in budget::parts()? {
                match budget::of(&part, &self.programs) {
                    Ok(count) => drop(self.instructions.insert(part, count)),
                    Err(error) => eprintln!("{part} is not counted at {}: {error:#}", self.name),
                }
            }
        }
        Ok(())
    }

    /// Median of each figure, in the order of the first turn.
    fn medians(&self) -> Vec<(String, String, f64)> {
        let mut values: Vec<(String, String, Vec<f64>)> = Vec::new();
        for figure in &self.figures {
            match values.iter_mut().find(|(name, ..)| *name == figure.name) {
                Some((.., all)) => all.push(figure.value),
                None => values.push((figure.name.clone(), figure.unit.clone(), vec![figure.value])),
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "instructions of a few milliseconds")]
        let counts = self
            .instructions
            .iter()
            .map(|(part, count)| (part.clone(), "instructions".to_owned(), vec![*count as f64]));
        let median = |mut all: Vec<f64>| {
            all.sort_unstable_by(f64::total_cmp);
            all[all.len() / 2]
        };
        values.into_iter().chain(counts).map(|(name, unit, all)| (name, unit, median(all))).collect()
    }
}

/// The servers and tools that benchmarks start.
const SERVERS: &[&str] = &["consort", "consort-peer", "consort-orderer", "consort-ca"];

/// Where cargo puts them.
fn built() -> Result<PathBuf> {
    Ok(scratch()?.parent().context("the bench folder lies in the folder of compiled files")?.join("debug"))
}

fn table(older: &Side, newer: &Side) -> String {
    let before: BTreeMap<String, f64> =
        older.medians().into_iter().map(|(name, _, value)| (name, value)).collect();
    let mut lines = vec![format!("{:<58} {:>14} {:>14} {:>8}", "median", older.name, newer.name, "ratio")];
    for (name, unit, now) in newer.medians() {
        let Some(&then) = before.get(&name) else { continue };
        let ratio = if then == 0.0 { String::new() } else { format!("{:.3}", now / then) };
        lines.push(format!("{name:<58} {:>14} {:>14} {ratio:>8} {unit}", short(then), short(now)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(values: &[f64]) -> Side {
        let figures = values.iter().map(|value| Figure::new("rate", *value, "/s")).collect();
        let programs = Programs::default();
        Side {
            name: "side".to_owned(),
            programs,
            saved: PathBuf::new(),
            figures,
            instructions: BTreeMap::new(),
        }
    }

    #[test]
    fn medians_of_both_commits_are_set_in_relation() {
        let text = table(&side(&[10.0, 1000.0, 20.0]), &side(&[30.0, 40.0, 0.0]));
        assert!(
            text.lines().nth(1).is_some_and(|line| line.contains("20.0") && line.contains("1.500")),
            "{text}"
        );
    }
}
