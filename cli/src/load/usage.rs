//! What the processes of a load run cost: CPU, memory, disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most folders that the size of a data folder is summed over; a database has a handful.
const FOLDERS_MAX: usize = 10_000;

/// Bytes of a block as `stat` counts them.
const STAT_BLOCK_BYTES: u64 = 512;

/// A process to watch.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pub(crate) pid: u32,
    /// Its data folder, if the bytes on disk matter.
    pub(crate) data: Option<PathBuf>,
}

/// What one process used between the beginning and the end of the measurement.
#[derive(Debug, Clone)]
pub(crate) struct ProcessUsage {
    pub(crate) name: String,
    pub(crate) cpu_seconds: f64,
    pub(crate) memory_bytes_max: u64,
    pub(crate) disk_bytes: Option<u64>,
}

/// What all processes used.
pub(crate) type UsageReport = Vec<ProcessUsage>;

/// A process with the figures at the beginning.
#[derive(Debug)]
struct Entry {
    watched: Watched,
    cpu_seconds: f64,
    memory_bytes_max: u64,
    disk_bytes: Option<u64>,
}

/// Watches processes; the generator itself is the last of them.
#[derive(Debug)]
pub(crate) struct Usage {
    entries: Vec<Entry>,
}

impl Usage {
    /// Watches these processes and this one.
    pub(crate) fn of(processes: &[Watched]) -> Self {
        let own = Watched { name: "load generator".to_owned(), pid: std::process::id(), data: None };
        let all = processes.iter().cloned().chain([own]);
        let entries =
            all.map(|watched| Entry { watched, cpu_seconds: 0.0, memory_bytes_max: 0, disk_bytes: None });
        Self { entries: entries.collect() }
    }

    /// Notes the figures that the report starts from.
    pub(crate) fn begin(&mut self) {
        for entry in &mut self.entries {
            entry.cpu_seconds = cpu_seconds(entry.watched.pid).unwrap_or(0.0);
            entry.disk_bytes = entry.watched.data.as_deref().map(disk_bytes);
        }
        self.sample();
    }

    /// Looks at the memory now.
    pub(crate) fn sample(&mut self) {
        for entry in &mut self.entries {
            let now = resident_bytes(entry.watched.pid).unwrap_or(0);
            entry.memory_bytes_max = entry.memory_bytes_max.max(now);
        }
    }

    /// What was used since [`Usage::begin`].
    pub(crate) fn finish(mut self) -> UsageReport {
        self.sample();
        let entries = self.entries.into_iter().map(|entry| ProcessUsage {
            cpu_seconds: (cpu_seconds(entry.watched.pid).unwrap_or(entry.cpu_seconds) - entry.cpu_seconds)
                .max(0.0),
            memory_bytes_max: entry.memory_bytes_max,
            disk_bytes: entry
                .disk_bytes
                .zip(entry.watched.data.as_deref())
                .map(|(before, folder)| disk_bytes(folder).saturating_sub(before)),
            name: entry.watched.name,
        });
        entries.collect()
    }
}

/// User and system time of a process in seconds (fields 14 and 15 of `/proc/<pid>/stat`, proc(5)).
fn cpu_seconds(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let user: u32 = fields.get(11)?.parse().ok()?;
    let system: u32 = fields.get(12)?.parse().ok()?;
    #[expect(clippy::cast_precision_loss, reason = "the kernel counts 100 or 1000 ticks per second")]
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(f64::from(user.saturating_add(system)) / per_second)
}

/// Resident memory of a process in bytes (`VmRSS` of `/proc/<pid>/status`).
fn resident_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Bytes that the files below a folder occupy on disk.
fn disk_bytes(folder: &Path) -> u64 {
    let mut folders = vec![folder.to_owned()];
    let mut bytes = 0;
    let mut visited = 0;
    while let Some(folder) = folders.pop() {
        visited += 1;
        if visited > FOLDERS_MAX {
            break;
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                // Logs of the database are allocated ahead; what was written counts, not what is reserved.
                bytes += (metadata.blocks() * STAT_BLOCK_BYTES).min(metadata.len());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_its_files_take_room() {
        let folder = tempfile::tempdir().unwrap();
        let this = Watched {
            name: "test".to_owned(),
            pid: std::process::id(),
            data: Some(folder.path().to_owned()),
        };
        let mut usage = Usage::of(&[this]);
        usage.begin();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/file"), vec![1; 100_000]).unwrap();
        let report = usage.finish();
        assert_eq!(report[0].disk_bytes, Some(100_000));
        assert!(report[0].memory_bytes_max > 1_000_000);
        assert_eq!(report[1].name, "load generator");
    }
}
