//! Reading log files: the end of one, and what is added to it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

/// At most this much of the end of a log is read, so that a huge log costs nothing.
const TAIL_BYTES_MAX: u64 = 256 * 1024;

/// How often a followed log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// The last `lines` lines of a file from byte `start` on.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn tail(path: &Path, start: u64, lines: usize) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let cut = length.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(cut.max(start)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line is cut when there is more than what was read.
    let whole = text.lines().skip(usize::from(cut > start));
    let mut last: Vec<&str> = whole.collect();
    let first = last.len().saturating_sub(lines);
    Ok(last.split_off(first).join("\n"))
}

/// Prints what is added to the files from now on, each line after its process's name, until the future is dropped.
///
/// # Errors
/// A file cannot be read.
pub(crate) async fn follow(files: &[(String, std::path::PathBuf)]) -> std::io::Result<()> {
    let mut positions = Vec::new();
    for (_, path) in files {
        positions.push(std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
    }
    loop {
        for ((name, path), position) in files.iter().zip(&mut positions) {
            print_added(name, path, position)?;
        }
        tokio::time::sleep(FOLLOW_INTERVAL).await;
    }
}

/// Prints whole lines only; an unfinished one waits for its end.
fn print_added(name: &str, path: &Path, position: &mut u64) -> std::io::Result<()> {
    let Ok(mut file) = File::open(path) else { return Ok(()) };
    let length = file.metadata()?.len();
    if length < *position {
        *position = 0;
    }
    file.seek(SeekFrom::Start(*position))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for line in String::from_utf8_lossy(&bytes[..whole]).lines() {
        println!("{name}: {line}");
    }
    *position += whole as u64;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&path, 0, 2).unwrap(), "two\nthree");
        assert_eq!(tail(&path, 0, 9).unwrap(), "one\ntwo\nthree");
        assert_eq!(tail(&path, 4, 9).unwrap(), "two\nthree");
    }

    #[test]
    fn the_tail_of_a_huge_log_is_short() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "a line of some length\n".repeat(100_000)).unwrap();
        assert_eq!(tail(&path, 0, 3).unwrap().lines().count(), 3);
    }
}
