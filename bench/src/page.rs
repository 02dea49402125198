//! What was found, for people and for programs.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use consort_bench::Figure;
use serde_json::{Value, json};

use crate::budget::Counted;
use crate::parts::Found;

/// What `docs/performance.md` has around the part that is written here.
const BEGIN: &str = "<!-- figures: written by make bench -->";
const END: &str = "<!-- end of the figures -->";

/// What the figures were measured on.
#[derive(Debug)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_gb: f64,
    system: String,
    compiler: String,
    commit: String,
    date: String,
    /// Other work per core when the run began.
    pub(crate) load: f64,
}

impl Machine {
    /// This machine and this clone.
    ///
    /// # Errors
    /// The kernel's description of the machine cannot be read, or git or rustc does not run.
    pub(crate) fn here() -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let cores = std::thread::available_parallelism()?.get();
        let (processors, memory, load) =
            (read("/proc/cpuinfo")?, read("/proc/meminfo")?, read("/proc/loadavg")?);
        let named = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kilobytes: f64 = named(&memory, "MemTotal")
            .and_then(|value| value.trim_end_matches("kB").trim().parse().ok())
            .context("/proc/meminfo names no MemTotal")?;
        let load: f64 = load.split_whitespace().next().context("/proc/loadavg is empty")?.parse()?;
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let commit = said("git", &["rev-parse", "--short=12", "HEAD"])?;
        #[expect(clippy::cast_precision_loss, reason = "a machine has few cores")]
        let load = load / cores as f64;
        Ok(Self {
            processor: named(&processors, "model name")
                .unwrap_or_else(|| "a processor without a name".to_owned()),
            cores,
            memory_gb: kilobytes / 1e6,
            system: said("uname", &["-sr"])?,
            compiler: said("rustc", &["--version"])?,
            commit: if changed { format!("{commit} with changes") } else { commit },
            date: said("date", &["-u", "+%Y-%m-%d"])?,
            load,
        })
    }

    fn sentence(&self) -> String {
        format!(
            "Commit {}, {}, {} cores of {}, {:.0} GB, {}, {}, build profile `dev`; load {:.1} per core before the run.",
            self.commit,
            self.date,
            self.cores,
            self.processor,
            self.memory_gb,
            self.system,
            self.compiler,
            self.load
        )
    }

    fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "memory_gb": self.memory_gb,
            "system": self.system,
            "compiler": self.compiler,
            "load_per_core_before": self.load,
        })
    }
}

/// What a command prints.
fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} {} failed", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A number with as many digits as say something.
pub(crate) fn short(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 0.1 || small == 0.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if digits > 0 || text.len() < 5 {
        return text;
    }
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let mut grouped = String::from(sign);
    for (place, digit) in text.chars().enumerate() {
        if place > 0 && (text.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The cells of a figure: name, value, what is wanted, ratio to the limit.
fn cells(figure: &Figure) -> [String; 4] {
    let bound = match (figure.at_least, figure.at_most) {
        (Some(least), _) => format!("at least {}", short(least)),
        (None, Some(most)) => format!("at most {}", short(most)),
        (None, None) => String::new(),
    };
    let missed = if figure.is_reached() == Some(false) { " (missed)" } else { "" };
    let ratio = ratio(figure).map_or_else(String::new, |(ratio, name, limit)| {
        format!("{} × {name} ({} {})", short(ratio), short(limit), figure.unit)
    });
    [
        figure.name.clone(),
        format!("{} {}", short(figure.value), figure.unit),
        format!("{bound}{missed}"),
        ratio,
    ]
}

/// The value as a multiple of its limit, the limit's name and its value.
fn ratio(figure: &Figure) -> Option<(f64, &str, f64)> {
    let limit = figure.limit.as_ref()?;
    let value = limit.value.filter(|value| *value > 0.0)?;
    Some((figure.value / value, &limit.name, value))
}

/// The whole run as a table for the terminal.
pub(crate) fn text(results: &[Found], counted: &Counted) -> String {
    let mut rows: Vec<(Option<&str>, [String; 4])> = Vec::new();
    for found in results {
        rows.push((Some(found.part.title), Default::default()));
        rows.extend(found.figures.iter().map(|figure| (None, cells(figure))));
    }
    if !counted.counts.is_empty() {
        rows.push((Some("Instructions of one call"), Default::default()));
        rows.extend(counted_cells(counted).into_iter().map(|cells| (None, cells)));
    }
    let width = |place: usize| rows.iter().map(|(_, cells)| cells[place].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2].map(width);
    let mut text = String::new();
    for (title, [name, value, wanted, ratio]) in &rows {
        let _ = match title {
            Some(title) => writeln!(text, "\n{title}"),
            None => writeln!(
                text,
                "  {name:<0$}  {value:>1$}  {wanted:<2$}  {ratio}",
                widths[0], widths[1], widths[2]
            ),
        };
    }
    let took: std::time::Duration = results.iter().map(|found| found.took).sum();
    let _ = write!(text, "\nMeasured for {:.1} minutes.", took.as_secs_f64() / 60.0);
    text
}

fn counted_cells(counted: &Counted) -> Vec<[String; 4]> {
    let cells = counted.counts.iter().map(|count| {
        #[expect(clippy::cast_precision_loss, reason = "instructions of a few milliseconds")]
        let (value, budget) = (short(count.instructions as f64), short(count.budget as f64));
        let over = if count.exceeds { " (exceeded)" } else { "" };
        [count.part.replace('-', " "), value, format!("budget {budget}{over}"), String::new()]
    });
    cells.collect()
}

fn markdown(machine: &Machine, results: &[Found], counted: &Counted) -> String {
    let mut text = format!("{}\n", machine.sentence());
    let mut table = |title: &str, rows: &mut dyn Iterator<Item = [String; 4]>| {
        let _ = write!(
            text,
            "\n**{title}**\n\n| What | Measured | Wanted | Beside what the machine can do |\n|---|---|---|---|\n"
        );
        for row in rows {
            let _ = writeln!(text, "| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
    };
    for found in results.iter().filter(|found| !found.figures.is_empty()) {
        table(found.part.title, &mut found.figures.iter().map(cells));
    }
    if !counted.counts.is_empty() {
        table("Instructions of one call", &mut counted_cells(counted).into_iter());
    }
    for found in results.iter().filter(|found| found.failed) {
        let _ = writeln!(text, "\nThe part \"{}\" failed in this run.", found.part.title);
    }
    if let Some(missing) = counted.missing {
        let _ = writeln!(text, "\nInstructions were not counted: {missing}.");
    }
    text
}

fn document(machine: &Machine, results: &[Found], counted: &Counted) -> Value {
    let figures = results.iter().flat_map(|found| {
        found.figures.iter().map(|figure| {
            let ratio = ratio(figure);
            json!({
                "part": found.part.name,
                "name": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "at_least": figure.at_least,
                "at_most": figure.at_most,
                "reached": figure.is_reached(),
                "limit": ratio.map(|(_, name, value)| json!({ "name": name, "value": value })),
                "ratio": ratio.map(|(ratio, ..)| ratio),
            })
        })
    });
    let instructions = counted.counts.iter().map(|count| {
        json!({
            "part": crate::budget::PROGRAM,
            "name": count.part,
            "value": count.instructions,
            "unit": "instructions",
            "at_most": count.budget,
            "reached": !count.exceeds,
            "limit": { "name": "budget", "value": count.budget },
            "ratio": if count.budget == 0 { None } else { Some(count.instructions as f64 / count.budget as f64) },
        })
    });
    json!({
        "commit": machine.commit,
        "date": machine.date,
        "machine": machine.json(),
        "figures": figures.chain(instructions).collect::<Vec<_>>(),
    })
}

/// Writes the page's figures, leaving what people wrote around them, and `bench.json`.
///
/// # Errors
/// The page has lost its marks, or a file cannot be written.
pub(crate) fn write(tree: &Path, machine: &Machine, results: &[Found], counted: &Counted) -> Result<()> {
    let json = document(machine, results, counted);
    std::fs::write(tree.join("bench.json"), format!("{json:#}\n")).context("cannot write bench.json")?;
    let path = tree.join("docs/performance.md");
    let page = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replaced(&page, &markdown(machine, results, counted)).with_context(|| {
        format!(
            "{} has lost the lines '{BEGIN}' and '{END}': put them back where the figures belong",
            path.display()
        )
    })?;
    std::fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(page: &str, figures: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", figures.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_replace_only_what_lies_between_the_marks() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(replaced(&new, "new").unwrap(), new);
        assert_eq!(replaced("no marks", "new"), None);
    }

    #[test]
    fn numbers_are_as_long_as_they_say_something() {
        let shown = [0.0, 0.0123, 1.234, 12.34, 123.4, 1234.0, 12_345.6, 1_234_567.0].map(short);
        assert_eq!(shown, ["0.00", "0.0123", "1.23", "12.3", "123", "1234", "12,346", "1,234,567"]);
    }

    #[test]
    fn a_row_says_what_is_wanted_whether_it_is_missed_and_the_ratio_to_the_limit() {
        let figure = Figure::new("replay", 94.0, "us").at_most(80.0).limit("its checks", 50.0);
        assert_eq!(
            cells(&figure),
            ["replay", "94.0 us", "at most 80.0 (missed)", "1.88 × its checks (50.0 us)"]
        );
    }
}
