//! What the kernel says of the host, as it says it.

use std::io::Read as _;

use super::Piece;

/// A longer file is cut.
const LONGEST: u64 = 1 << 20;

const FILES: &[&str] = &[
    "loadavg",
    "meminfo",
    "stat",
    "vmstat",
    "uptime",
    "diskstats",
    "mounts",
    "net/dev",
    "net/sockstat",
    "pressure/cpu",
    "pressure/io",
    "pressure/memory",
    "version",
];

/// Reads what there is; a kernel without pressure says so.
pub(super) fn pieces() -> Vec<Piece> {
    let mut pieces: Vec<Piece> = FILES.iter().map(|file| piece(file)).collect();
    pieces.push(Piece { path: "host/space.jsonl".to_owned(), content: space() });
    pieces
}

fn piece(file: &str) -> Piece {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(format!("/proc/{file}"))?.take(LONGEST).read_to_string(&mut text)?;
        Ok(text)
    };
    let content = read().map_err(|error: std::io::Error| error.to_string());
    Piece { path: format!("host/{}", file.replace('/', "-")), content }
}

/// Says how full each file system on a disk is. Those of the network are left out: one that hangs would hold everything up.
fn space() -> Result<String, String> {
    let mounts = std::fs::read_to_string("/proc/mounts").map_err(|error| error.to_string())?;
    let mut text = String::new();
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(device), Some(place), Some(kind)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if !device.starts_with("/dev/") && !matches!(kind, "tmpfs" | "overlay" | "zfs" | "btrfs") {
            continue;
        }
        let Ok(space) = rustix::fs::statvfs(place.replace("\\040", " ")) else { continue };
        let line = serde_json::json!({
            "place": place, "device": device, "kind": kind,
            "bytes": space.f_blocks.saturating_mul(space.f_frsize),
            "free_bytes": space.f_bavail.saturating_mul(space.f_frsize),
            "inodes": space.f_files, "free_inodes": space.f_favail,
        });
        text.push_str(&format!("{line}\n"));
    }
    Ok(text)
}
