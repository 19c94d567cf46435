//! How much memory there is, and how much of it programs can still have.

use std::path::Path;

use super::{Error, Group, odd, read};

/// Memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    /// What can be had without swapping: free memory, and the cache that would be given away.
    pub(crate) available: u64,
    /// Is it the limit of a container, and not the machine's?
    pub(crate) limited: bool,
}

impl Memory {
    /// Returns how much is available, in percent.
    pub(crate) fn available_percent(&self) -> f64 {
        percent(self.available, self.total)
    }
}

/// Reads the machine's memory, or the container's, whichever has the smaller part of it left.
pub(crate) fn read_memory(root: &Path) -> Result<Memory, Error> {
    const NAME: &str = "proc/meminfo";
    let machine = parse(&read(root, NAME)?).ok_or_else(|| odd(root, NAME))?;
    let limit = Group::of_this_process(root).and_then(|group| group.memory());
    let limit = limit.filter(|limit| limit.most > 0 && limit.most < machine.total);
    let limit =
        limit.map(|limit| Memory { total: limit.most, available: limit.available, limited: true });
    Ok(match limit {
        Some(limit) if limit.available_percent() < machine.available_percent() => limit,
        _ => machine,
    })
}

fn parse(text: &str) -> Option<Memory> {
    let kilobytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = kilobytes("MemTotal").filter(|total| *total > 0)?;
    Some(Memory { total, available: kilobytes("MemAvailable")?, limited: false })
}

/// Returns a part of a whole in percent; of nothing, nothing.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::lay_out;

    const MEMINFO: &str = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:     150 kB\n";

    #[test]
    fn the_machine_or_the_container_counts() {
        let machine = lay_out(&[("proc/meminfo", MEMINFO)]);
        let memory = read_memory(machine.path()).unwrap();
        assert_eq!((memory.total, memory.available, memory.limited), (1_024_000, 153_600, false));
        assert!((memory.available_percent() - 15.0).abs() < 1e-9);
        for (current, limited) in [("99000", true), ("50000", false)] {
            let container = lay_out(&[
                ("proc/meminfo", MEMINFO),
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", "1 2 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"),
                ("sys/fs/cgroup/memory.max", "100000\n"),
                ("sys/fs/cgroup/memory.current", current),
            ]);
            assert_eq!(read_memory(container.path()).unwrap().limited, limited);
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let machine = lay_out(&[("proc/meminfo", "MemTotal: 1000 kB\n")]);
        assert!(matches!(read_memory(machine.path()), Err(Error::Odd(_))));
        assert!(matches!(read_memory(Path::new("/nowhere")), Err(Error::Io(..))));
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = read_memory(Path::new("/")).unwrap();
        assert!(memory.available <= memory.total && memory.available > 0, "{memory:?}");
    }
}
