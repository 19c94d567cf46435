//! The control group of this process (cgroup v2): the limits that hold in a container.
//!
//! A limit may be set at the own group or at any around it, so all are looked at, as far as they can be seen. Version 1 is
//! not read: there the machine's figures count. Source: the kernel's `Documentation/admin-guide/cgroup-v2.rst`.

use std::path::{Path, PathBuf};

use super::read;

/// The folders of the own group and of those around it, innermost first.
pub(super) struct Group {
    folders: Vec<PathBuf>,
}

/// How much memory a group may have, and how much of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryLimit {
    pub(super) most: u64,
    pub(super) available: u64,
}

/// How many processors a group may use, and for how long it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ProcessorLimit {
    pub(super) processors: f64,
    pub(super) used_microseconds: u64,
}

impl Group {
    /// Finds the group of this process; none where version 2 is not mounted.
    pub(super) fn of_this_process(root: &Path) -> Option<Group> {
        let own = read(root, "proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        let mounts = read(root, "proc/self/mountinfo").ok()?;
        let (top, mounted_at) = mounts.lines().find_map(mount)?;
        let mounted_at = root.join(mounted_at.trim_start_matches('/'));
        // What is mounted may be a part of the tree; a group outside of it cannot be seen.
        let below = Path::new(own).strip_prefix(top).unwrap_or(Path::new(""));
        let innermost = mounted_at.join(below);
        let folders = innermost.ancestors().take_while(|folder| folder.starts_with(&mounted_at));
        Some(Group { folders: folders.map(Path::to_owned).collect() })
    }

    /// Returns the tightest limit of memory; none if there is none.
    pub(super) fn memory(&self) -> Option<MemoryLimit> {
        let limit = |folder: &PathBuf| {
            let most = number(folder, "memory.max")?;
            let used = number(folder, "memory.current")?;
            // The kernel gives these pages away before it lets anybody go without.
            let cache = keyed(folder, "memory.stat", "inactive_file").unwrap_or(0);
            let available = most.saturating_sub(used.saturating_sub(cache));
            Some(MemoryLimit { most, available })
        };
        self.folders.iter().filter_map(limit).min_by_key(|limit| limit.available)
    }

    /// Returns the tightest limit of processor time; none if there is none.
    pub(super) fn processors(&self) -> Option<ProcessorLimit> {
        let limit = |folder: &PathBuf| {
            let text = read(folder, "cpu.max").ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            let processors = quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?;
            let used_microseconds = keyed(folder, "cpu.stat", "usage_usec")?;
            let sound = processors.is_finite() && processors > 0.0;
            sound.then_some(ProcessorLimit { processors, used_microseconds })
        };
        let limits = self.folders.iter().filter_map(limit);
        limits.min_by(|a, b| a.processors.total_cmp(&b.processors))
    }

    /// Returns the folder of the own group.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folders.first().map(PathBuf::as_path)
    }
}

/// Returns what part of the tree a line of `mountinfo` mounts, and where, if it is cgroup v2.
fn mount(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (top, at) = (fields.next()?, fields.next()?);
    (after.split(' ').next() == Some("cgroup2")).then_some((top, at))
}

/// Reads a file of one number; `max` is none.
fn number(folder: &Path, name: &str) -> Option<u64> {
    read(folder, name).ok()?.trim().parse().ok()
}

/// Reads the number behind a name, one of which stands on each line.
fn keyed(folder: &Path, name: &str, key: &str) -> Option<u64> {
    let text = read(folder, name).ok()?;
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::lay_out;

    const MOUNT: &str = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_tightest_limit_of_all_groups_counts() {
        let root = lay_out(&[
            ("proc/self/cgroup", "1:cpu:/\n0::/slice/unit\n"),
            ("proc/self/mountinfo", MOUNT),
            ("sys/fs/cgroup/slice/memory.max", "1000\n"),
            ("sys/fs/cgroup/slice/memory.current", "900\n"),
            ("sys/fs/cgroup/slice/memory.stat", "anon 1\ninactive_file 300\n"),
            ("sys/fs/cgroup/slice/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/slice/cpu.stat", "usage_usec 77\nuser_usec 70\n"),
            ("sys/fs/cgroup/slice/unit/memory.max", "max\n"),
            ("sys/fs/cgroup/slice/unit/memory.current", "5\n"),
            ("sys/fs/cgroup/slice/unit/cpu.max", "max 100000\n"),
        ]);
        let group = Group::of_this_process(root.path()).unwrap();
        assert_eq!(group.memory(), Some(MemoryLimit { most: 1000, available: 400 }));
        let limit = ProcessorLimit { processors: 1.5, used_microseconds: 77 };
        assert_eq!(group.processors(), Some(limit));
        assert!(group.folder().unwrap().ends_with("slice/unit"));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        // As Docker mounts it without a namespace of its own for groups.
        let mount = MOUNT.replace(" / ", " /docker/abc ");
        let root = lay_out(&[
            ("proc/self/cgroup", "0::/docker/abc\n"),
            ("proc/self/mountinfo", &mount),
            ("sys/fs/cgroup/memory.max", "64\n"),
            ("sys/fs/cgroup/memory.current", "60\n"),
        ]);
        let group = Group::of_this_process(root.path()).unwrap();
        assert_eq!(group.memory(), Some(MemoryLimit { most: 64, available: 4 }));
        assert_eq!(group.processors(), None);
        assert!(Group::of_this_process(Path::new("/nowhere")).is_none());
    }
}
