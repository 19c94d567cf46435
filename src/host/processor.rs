//! How busy the processors are between two looks, and how many tasks want them.

use std::path::Path;
use std::time::Instant;

use super::{Error, Group, odd, read};

const STAT: &str = "proc/stat";
const LOAD: &str = "proc/loadavg";

/// A look at the counters, to be compared with a later one.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    at: Instant,
    /// Of all processors together, in ticks.
    busy: u64,
    idle: u64,
    /// Of this process and its children that have ended, in ticks.
    own: u64,
    /// The limit of the control group, where there is one.
    limit: Option<(f64, u64)>,
}

/// How busy the processors were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Busy {
    /// Of what may be used, without what this process used.
    pub(crate) percent: f64,
    /// How many processors a container may use, if that is limited.
    pub(crate) limit: Option<f64>,
}

/// How many tasks ran or wanted to, on the whole machine: averages of 1, 5 and 15 minutes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    pub(crate) averages: [f64; 3],
    /// Of the machine: the averages know nothing of containers either.
    pub(crate) processors: u32,
}

impl Load {
    /// Returns the average of five minutes for each processor.
    pub(crate) fn per_processor(&self) -> f64 {
        self.averages[1] / f64::from(self.processors.max(1))
    }
}

impl Sample {
    /// Looks at the counters.
    pub(crate) fn take(root: &Path) -> Result<Sample, Error> {
        let text = read(root, STAT)?;
        let (busy, idle) = ticks(&text).ok_or_else(|| odd(root, STAT))?;
        let own = read(root, "proc/self/stat").ok().and_then(|text| own_ticks(&text));
        let limit = Group::of_this_process(root).and_then(|group| group.processors());
        Ok(Sample {
            at: Instant::now(),
            busy,
            idle,
            own: own.unwrap_or(0),
            limit: limit.map(|limit| (limit.processors, limit.used_microseconds)),
        })
    }

    /// Returns how busy the processors were since an earlier look; none if no time has passed.
    pub(crate) fn since(&self, earlier: &Sample) -> Option<Busy> {
        let own = self.own.saturating_sub(earlier.own);
        if let (Some((processors, now)), Some((_, before))) = (self.limit, earlier.limit) {
            let passed = self.at.duration_since(earlier.at).as_secs_f64() * processors;
            let own_seconds = real(own) / real(rustix::param::clock_ticks_per_second());
            let used = real(now.saturating_sub(before)) / 1e6 - own_seconds;
            let percent = (used.max(0.0) * 100.0 / passed).min(100.0);
            return (passed > 0.0).then_some(Busy { percent, limit: Some(processors) });
        }
        let busy = self.busy.saturating_sub(earlier.busy);
        let all = busy + self.idle.saturating_sub(earlier.idle);
        let percent = real(busy.saturating_sub(own)) * 100.0 / real(all);
        (all > 0).then_some(Busy { percent, limit: None })
    }
}

/// Reads the load.
pub(crate) fn read_load(root: &Path) -> Result<Load, Error> {
    let text = read(root, LOAD)?;
    let averages: Vec<f64> = text.split(' ').take(3).filter_map(|word| word.parse().ok()).collect();
    let averages = <[f64; 3]>::try_from(averages).map_err(|_| odd(root, LOAD))?;
    let stat = read(root, STAT)?;
    let is_one = |line: &&str| {
        line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let processors = u32::try_from(stat.lines().filter(is_one).count()).unwrap_or(u32::MAX);
    Ok(Load { averages, processors })
}

/// Returns the busy and idle ticks of all processors: waiting for I/O is idle, and guests are in user time already.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let idle = fields.get(3)?.saturating_add(fields.get(4).copied().unwrap_or(0));
    let all = fields.iter().take(8).fold(0_u64, |sum, field| sum.saturating_add(*field));
    Some((all.saturating_sub(idle), idle))
}

/// Returns the ticks of a process and its children. The name in parentheses may hold anything, spaces, too.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(4).map_while(|field| field.parse().ok());
    Some(ticks.fold(0_u64, |sum, field: u64| sum.saturating_add(field)))
}

#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more")]
fn real(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::lay_out;
    use std::time::Duration;

    const STAT_1: &str = "cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 2\ncpu1 3 4\nintr 5\n";
    const STAT_2: &str = "cpu  150 10 70 830 60 3 2 5 9 0\ncpu0 1 2\n";

    #[test]
    fn what_this_process_used_is_taken_out() {
        let own = |ticks| format!("1 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0\n");
        let first = lay_out(&[("proc/stat", STAT_1), ("proc/self/stat", &own(10))]);
        let second = lay_out(&[("proc/stat", STAT_2), ("proc/self/stat", &own(20))]);
        let first = Sample::take(first.path()).unwrap();
        let second = Sample::take(second.path()).unwrap();
        // Of 130 ticks 40 were idle, and 10 are this process's.
        let busy = second.since(&first).unwrap();
        assert!((busy.percent - 80.0 * 100.0 / 130.0).abs() < 1e-9, "{busy:?}");
        assert_eq!(first.since(&first), None);
    }

    #[test]
    fn in_a_container_its_limit_is_the_whole() {
        let sample = |used: &str| {
            let root = lay_out(&[
                ("proc/stat", STAT_1),
                ("proc/self/cgroup", "0::/\n"),
                ("proc/self/mountinfo", "1 2 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"),
                ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
                ("sys/fs/cgroup/cpu.stat", used),
            ]);
            Sample::take(root.path()).unwrap()
        };
        let (first, mut second) = (sample("usage_usec 1000000\n"), sample("usage_usec 1400000\n"));
        second.at = first.at + Duration::from_secs(1);
        let busy = second.since(&first).unwrap();
        assert!((busy.percent - 80.0).abs() < 1e-6 && busy.limit == Some(0.5), "{busy:?}");
    }

    #[test]
    fn the_load_is_shared_by_the_processors() {
        let root = lay_out(&[("proc/stat", STAT_1), ("proc/loadavg", "9.00 5.00 1.50 2/300 99\n")]);
        let load = read_load(root.path()).unwrap();
        assert_eq!((load.averages, load.processors), ([9.0, 5.0, 1.5], 2));
        assert!((load.per_processor() - 2.5).abs() < 1e-9);
        let odd = lay_out(&[("proc/stat", "cpu x\n"), ("proc/loadavg", "1 2\n")]);
        assert!(matches!(Sample::take(odd.path()), Err(Error::Odd(_))));
        assert!(matches!(read_load(odd.path()), Err(Error::Odd(_))));
    }

    #[test]
    fn this_machine_tells_both() {
        Sample::take(Path::new("/")).unwrap();
        assert!(read_load(Path::new("/")).unwrap().processors > 0);
    }
}
