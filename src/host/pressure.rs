//! Pressure stall information: for how much of the time somebody had to wait for processors, memory or I/O.
//!
//! Source: the kernel's `Documentation/accounting/psi.rst`. Kernels without it, and some containers, have no such files.

use std::path::Path;

use super::{Group, read};

/// The part of the last minute in which at least one task waited, in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pressure {
    pub(crate) cpu: Option<f64>,
    pub(crate) memory: Option<f64>,
    pub(crate) io: Option<f64>,
}

/// Reads the pressure in the own control group, or else of the whole machine.
pub(crate) fn read_pressure(root: &Path) -> Pressure {
    let group = Group::of_this_process(root);
    let folder = group.as_ref().and_then(Group::folder);
    let one = |name: &str| {
        let own = folder.and_then(|folder| read(folder, &format!("{name}.pressure")).ok());
        let text = own.or_else(|| read(root, &format!("proc/pressure/{name}")).ok())?;
        some_of_last_minute(&text)
    };
    Pressure { cpu: one("cpu"), memory: one("memory"), io: one("io") }
}

fn some_of_last_minute(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|field| field.strip_prefix("avg60="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::lay_out;

    #[test]
    fn the_last_minute_is_read_where_it_is_told() {
        let text = "some avg10=9.52 avg60=7.54 avg300=7.16 total=54430743\nfull avg10=0.00 avg60=1.00 avg300=0.00 total=0\n";
        let root = lay_out(&[("proc/pressure/cpu", text)]);
        let expected = Pressure { cpu: Some(7.54), ..Pressure::default() };
        assert_eq!(read_pressure(root.path()), expected);
    }
}
