//! A throwaway PostgreSQL server: its own directory, a private socket, no network, nothing of it survives.
//!
//! It never touches an existing server. Its life is tied to ours by a pipe: when this process ends, even by
//! SIGKILL, the shell that waits on the pipe ends the server. Durability is off, as nothing is to be kept.

use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Error, Target};
use crate::child::{Child, Spec};
use crate::environment::Environment;
use crate::secret::Secret;
use crate::stop::Stop;

/// How long the server may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to end when asked to, before it is killed.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Waits for the end of its stdin and then ends the server.
const GUARD: &str =
    r#""$@" </dev/null >/dev/null & server=$!; read -r _; kill -INT $server; wait $server"#;

/// A running server, ended and removed when dropped.
pub(crate) struct ThrowawayServer {
    guard: Option<Child>,
    pipe: Option<std::process::ChildStdin>,
    folder: tempfile::TempDir,
}

impl ThrowawayServer {
    /// Makes a cluster with the programs in `bin_dir` and starts a server on it.
    ///
    /// As root, it runs as the user `postgres` or `nobody`, because PostgreSQL refuses to run as root.
    pub(crate) fn start(bin_dir: &Path, stop: &Stop) -> anyhow::Result<ThrowawayServer> {
        let folder = tempfile::Builder::new().prefix("opsctl-pg-").tempdir()?;
        let user = rustix::process::getuid().is_root().then(unprivileged_user).transpose()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700))?;
        let data = text(&folder.path().join("data"))?;
        let spec = |program: PathBuf| {
            let spec = Spec::new(program);
            user.map_or(spec.clone(), |(uid, gid)| spec.user(uid, gid))
        };
        let arguments = [
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            "--pgdata",
            &data,
        ];
        spec(bin_dir.join("initdb")).args(arguments).output(stop, 1 << 20)?;

        let socket = text(folder.path())?;
        let mut command = vec![
            "-c".to_owned(),
            GUARD.to_owned(),
            "sh".to_owned(),
            text(&bin_dir.join("postgres"))?,
        ];
        command.extend(["-D", &data, "-k", &socket].map(str::to_owned));
        for setting in [
            "listen_addresses=",
            "fsync=off",
            "full_page_writes=off",
            "synchronous_commit=off",
            "wal_level=minimal",
            "max_wal_senders=0",
            "autovacuum=off",
            "max_wal_size=4GB",
            "shared_buffers=128MB",
        ] {
            command.extend(["-c".to_owned(), setting.to_owned()]);
        }
        // Not the run's token: the end comes with the drop, in order, also after an interruption.
        let mut guard =
            spec(PathBuf::from("/bin/sh")).args(command).piped_stdin().spawn(&Stop::new())?;
        let pipe = guard.take_stdin();
        let mut server = ThrowawayServer { guard: Some(guard), pipe, folder };
        server.wait_until_ready(stop)?;
        Ok(server)
    }

    /// Returns where to connect to `database`.
    pub(crate) fn target(&self, database: &str) -> Result<Target, Error> {
        let url =
            format!("host='{}' user=postgres dbname='{database}'", self.folder.path().display());
        Target::resolve(Some(&Secret::new(url)), &Environment::default())
    }

    fn wait_until_ready(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let until = Instant::now() + START_LIMIT;
        loop {
            let Err(error) = self.target("postgres")?.connect("opsctl", stop) else {
                return Ok(());
            };
            if let Some(guard) = &mut self.guard {
                anyhow::ensure!(guard.is_well()?, "the throwaway server ended at once");
            }
            if Instant::now() > until {
                return Err(anyhow::Error::from(error)
                    .context("the throwaway server did not start in time"));
            }
            stop.sleep(Duration::from_millis(50))?;
        }
    }
}

impl Drop for ThrowawayServer {
    fn drop(&mut self) {
        self.pipe = None;
        let until = Instant::now() + END_LIMIT;
        if let Some(mut guard) = self.guard.take() {
            while Instant::now() < until && matches!(guard.is_well(), Ok(true)) {
                // Nobody interrupts this; it is bounded.
                Stop::new().sleep(Duration::from_millis(20)).ok();
            }
            guard.end();
        }
    }
}

/// Returns user and group number of `postgres`, else of `nobody`.
fn unprivileged_user() -> io::Result<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .ok_or_else(|| io::Error::other("no user `postgres` or `nobody`"))
}

fn text(path: &Path) -> io::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| io::Error::other("a path is not valid Unicode"))
}
