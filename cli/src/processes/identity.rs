//! Which process a pid meant when it was written down.

use std::fs;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

/// A pid with the moment at which its process started; equal only for the very same process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    /// Process id.
    pub(crate) pid: u32,
    /// Clock ticks since boot at which the process started (field 22 of `/proc/<pid>/stat`, proc(5)).
    pub(crate) started_ticks: u64,
    /// The boot that the ticks count from (`/proc/sys/kernel/random/boot_id`).
    pub(crate) boot: String,
}

impl ProcessIdentity {
    /// The identity of a process that exists now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self { pid, started_ticks: stat.started_ticks, boot: boot_id() })
    }

    /// Whether this very process still runs; a zombie has ended, and another process with the same pid is another one.
    pub(crate) fn is_alive(&self) -> bool {
        let same = |stat: &Stat| stat.started_ticks == self.started_ticks && !stat.ended;
        Stat::read(self.pid).is_some_and(|stat| same(&stat)) && self.boot == boot_id()
    }

    /// The pid as the kernel interface wants it.
    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid).ok()?)
    }
}

/// The fields of `/proc/<pid>/stat` that matter here.
struct Stat {
    started_ticks: u64,
    ended: bool,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses and may itself hold blanks and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let after_name = &text[text.rfind(')')? + 1..];
        let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
        let state = *fields.first()?;
        // Field 22 of the file is the twentieth after the name.
        let started_ticks = fields.get(19)?.parse().ok()?;
        // Field 20. A killed process whose first thread has ended is a zombie already while its other threads end, and has its
        // files, locks and ports until the last of them is gone.
        let threads: u32 = fields.get(17)?.parse().ok()?;
        Some(Self { started_ticks, ended: state == "X" || (state == "Z" && threads <= 1) })
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let fields: Vec<String> = (4..=30).map(|field| field.to_string()).collect();
        let stat = Stat::parse(&format!("7 (a) b (c)) S {}", fields.join(" "))).unwrap();
        assert_eq!(stat.started_ticks, 22);
        assert!(!stat.ended);
    }

    #[test]
    fn a_zombie_has_ended_when_none_of_its_other_threads_is_left() {
        let ended = |threads: u32| {
            let fields: Vec<String> =
                (4..=30).map(|field| if field == 20 { threads } else { field }.to_string()).collect();
            Stat::parse(&format!("7 (a) Z {}", fields.join(" "))).unwrap().ended
        };
        assert!(!ended(2));
        assert!(ended(1));
    }

    #[test]
    fn this_process_is_alive_and_its_namesake_is_not() {
        let this = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(this.is_alive());
        let earlier = ProcessIdentity { started_ticks: this.started_ticks - 1, ..this.clone() };
        assert!(!earlier.is_alive());
        let before_boot = ProcessIdentity { boot: "another".to_owned(), ..this };
        assert!(!before_boot.is_alive());
    }
}
