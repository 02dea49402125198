//! What the operator sees while something happens: one line per step, in words, with its time.

use std::future::Future;
use std::time::{Duration, Instant};

/// Prints the steps of one command to standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    began: Instant,
}

impl Report {
    /// Begins with a headline.
    pub(crate) fn begin(headline: &str) -> Self {
        println!("{headline}");
        Self { began: Instant::now() }
    }

    /// Runs one step; its line appears when it is done and says what came out.
    pub(crate) async fn step<T>(
        &self,
        work: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> anyhow::Result<T> {
        let began = Instant::now();
        let (value, outcome) = work.await?;
        self.line(&format!("{outcome} ({})", seconds(began.elapsed())));
        Ok(value)
    }

    /// A line under the headline.
    pub(crate) fn line(&self, text: &str) {
        for line in text.lines() {
            println!("  {line}");
        }
    }

    /// Time since the headline.
    pub(crate) fn elapsed(&self) -> String {
        seconds(self.began.elapsed())
    }
}

/// A duration as people read it.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// `1 peer`, `2 peers`.
pub(crate) fn count(number: usize, word: &str) -> String {
    match (number, word.strip_suffix('y')) {
        (1, _) => format!("1 {word}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) if word.ends_with('s') => format!("{number} {word}es"),
        _ => format!("{number} {word}s"),
    }
}

/// The verb that goes with a number.
pub(crate) fn are(number: usize) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

/// Lines up the columns of a table.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_with_their_nouns() {
        assert_eq!(count(1, "peer"), "1 peer");
        assert_eq!(count(3, "certificate authority"), "3 certificate authorities");
        assert_eq!(count(8, "process"), "8 processes");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["name", "pid"], ["peer0", "12345"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "name   pid\npeer0  12345");
    }
}
