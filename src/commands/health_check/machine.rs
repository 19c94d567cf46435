//! The inquiries about the machine: its file systems, memory and processors, its services and its logs.

use std::path::PathBuf;

use crate::clock::Moment;
use crate::commands::Context;
use crate::commands::health_check::past::Past;
use crate::config::{Config, Location};
use crate::health::host::{self, DiskChecks};
use crate::health::service::{self, Surroundings};
use crate::health::{Check, Inquiry, kind, log};

pub(super) fn inquiries(
    context: &Context,
    config: &Config,
    past: &Past,
    now: Moment,
) -> Vec<Inquiry> {
    let health = &config.health;
    let check = |kind| Check::new(kind, "", &health.of_kind(kind));
    let mut inquiries = disks(config, past, now);
    inquiries.push(host::memory(check(&kind::MEMORY)));
    inquiries.push(host::cpu(check(&kind::CPU)));
    inquiries.push(host::load(check(&kind::LOAD)));
    let runtime_dir = context.environment.get("XDG_RUNTIME_DIR").map(PathBuf::from);
    let of_user = || format!("/run/user/{}", rustix::process::getuid().as_raw()).into();
    let at = Surroundings {
        docker_host: context.environment.get("DOCKER_HOST").map(str::to_owned),
        runtime_dir: runtime_dir.unwrap_or_else(of_user),
    };
    let services = health.services.iter();
    inquiries.extend(services.map(|configured| service::inquiry(configured, at.clone(), now)));
    inquiries.extend(health.logs.iter().map(|configured| log::inquiry(configured, now)));
    inquiries
}

/// Returns the inquiries about every file system that something depends on, named after where it is mounted.
fn disks(config: &Config, past: &Past, now: Moment) -> Vec<Inquiry> {
    let health = &config.health;
    let mut paths = vec![PathBuf::from("/"), config.state_dir.clone()];
    paths.extend(config.repositories.iter().filter_map(|r| match &r.location {
        Location::Directory(path) => Some(path.clone()),
        Location::S3(_) => None,
    }));
    paths.extend(config.metrics.textfile_dir.clone());
    paths.extend(health.disk_paths.iter().cloned());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let disk = |(mounted_at, paths): (String, Vec<PathBuf>)| {
        let instance = mounted_at.trim_matches('/');
        let check = |kind| Check::new(kind, instance, &health.of_kind(kind));
        let disk = check(&kind::DISK);
        let (past, figure) = (past.clone(), format!("{}.value", disk.name));
        host::disk(DiskChecks {
            stated: paths.iter().filter(|p| health.disk_paths.contains(p)).cloned().collect(),
            paths,
            disk,
            inodes: check(&kind::INODES),
            full: check(&kind::DISK_FULL),
            now,
            earlier: Box::new(move || past.figures(&figure)),
        })
    };
    host::mount_points(&mounts, &paths).into_iter().map(disk).collect()
}
