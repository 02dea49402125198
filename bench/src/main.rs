//! `consort-bench`: runs every benchmark, compares what they found with what is wanted and with what the machine can do, and writes it
//! down. `make bench` and `make bench-compare` run it.
//!
//! ```text
//!  parts (what to run, in which order) -> programs (built by cargo) -> figures, one file per part
//!  budget (instructions, counted by callgrind)                            |
//!                                       page (table, docs/performance.md, bench.json)   compare (two commits in turn)
//! ```

mod budget;
mod compare;
mod page;
mod parts;
mod programs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use parts::{PARTS, Run};
use programs::Programs;

const USAGE: &str = "\
usage: consort-bench run [part ...]               measure everything, or some parts, in the folder of a clone
       consort-bench compare <commit> [part ...]  measure that commit and this one in turn
       consort-bench accept                       take the counted instructions for the new budget";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything ran and nothing exceeded its budget.
fn run() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["run", chosen @ ..] => measure(&checked(chosen)?),
        ["compare", base, chosen @ ..] => compare::compare(base, &checked(chosen)?),
        ["accept"] => {
            let programs = Programs::build(Path::new("."), &[budget::PROGRAM])?;
            budget::accept(&programs)?;
            Ok(true)
        }
        _ => bail!("{USAGE}"),
    }
}

fn checked<'a>(chosen: &[&'a str]) -> Result<Vec<&'a str>> {
    let known = |name: &str| name == budget::PROGRAM || PARTS.iter().any(|part| part.name == name);
    if let Some(unknown) = chosen.iter().find(|name| !known(name)) {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).chain([budget::PROGRAM]).collect();
        bail!("there is no part '{unknown}'; there are: {}", names.join(", "));
    }
    Ok(chosen.to_vec())
}

/// The folder for what a run writes besides its results: below the folder for compiled files.
fn scratch() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = std::path::absolute(target)?.join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

fn measure(chosen: &[&str]) -> Result<bool> {
    let whole = chosen.is_empty();
    let is_chosen = |name: &str| whole || chosen.contains(&name);
    let machine = page::Machine::here()?;
    if machine.load > 0.5 {
        eprintln!(
            "This machine is doing other work (load {:.1}): only ratios within the run will count.",
            machine.load
        );
    }
    let names: Vec<&str> =
        PARTS.iter().map(|part| part.name).chain([budget::PROGRAM]).filter(|name| is_chosen(name)).collect();
    let programs = Programs::build(Path::new("."), &names)?;
    let folder = scratch()?.join("run");
    let mut results = Vec::new();
    for part in PARTS.iter().filter(|part| is_chosen(part.name)) {
        results.push(Run { folder: &folder }.part(part, &programs)?);
    }
    let counted =
        if is_chosen(budget::PROGRAM) { budget::count(&programs)? } else { budget::Counted::default() };
    parts::fill_limits(&mut results);
    println!("\n{}", page::text(&results, &counted));
    if whole {
        page::write(Path::new("."), &machine, &results, &counted)?;
        println!("Written: docs/performance.md and bench.json");
    }
    let failed: Vec<&str> =
        results.iter().filter(|result| result.failed).map(|result| result.part.name).collect();
    if !failed.is_empty() {
        eprintln!("These parts failed (their output is above): {}", failed.join(", "));
    }
    Ok(failed.is_empty() && !counted.report())
}
