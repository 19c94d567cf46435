//! Metrics in a real Pushgateway: what it shows is what was written, and a failure hides nothing.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Instant;

use crate::support::receiver::Receiver;
use crate::support::{Cluster, Sandbox, promtool, stock, unpacked};

/// A server of the test's own.
struct Pushgateway {
    server: Child,
    /// Host and port.
    address: String,
}

impl Pushgateway {
    fn start(args: &[&str]) -> Pushgateway {
        let mut command = unpacked("prometheus-pushgateway");
        command.args(["--web.listen-address=127.0.0.1:0", "--persistence.file="]).args(args);
        let mut server = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
        let said = lines.find(|line| line.contains("Listening on")).expect("it says where it is");
        let address = said.rsplit_once("address=").unwrap().1.to_owned();
        // It must not be held up by what nobody reads.
        std::thread::spawn(move || lines.for_each(drop));
        Pushgateway { server, address }
    }

    /// Returns the series of opsctl that it shows, without the name of the job.
    fn series(&self, credentials: &[&str]) -> Vec<String> {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sSf", &format!("http://{}/metrics", self.address)]).args(credentials);
        let text = stock(&mut curl);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        stock(promtool().args(["check", "metrics"]).stdin(file.reopen().unwrap()));
        let series = text.lines().filter(|line| line.starts_with("opsctl_"));
        series.map(|line| line.replace(",instance=\"\",job=\"opsctl\"", "")).collect()
    }
}

impl Drop for Pushgateway {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn sandbox() -> (String, Sandbox) {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT generate_series(1, 7) AS id");
    (database.clone(), Sandbox::new(&cluster.url(&database)))
}

#[test]
fn what_is_pushed_is_what_is_written_and_a_failure_hides_nothing() {
    let pushgateway = Pushgateway::start(&[]);
    let (database, mut sandbox) = sandbox();
    let dir = sandbox.path("textfiles");
    std::fs::create_dir(&dir).unwrap();
    sandbox.set("OPSCTL_TEXTFILE_DIR", dir.to_str().unwrap());
    sandbox.set("OPSCTL_PUSHGATEWAY", format!("http://{}", pushgateway.address));
    sandbox.run(&["backup", "--dry-run"]).ends_with(0);
    assert_eq!(pushgateway.series(&[]), [] as [&str; 0]);
    sandbox.run(&["backup"]).ends_with(0);
    sandbox.run(&["verify-backup", "--restore-test"]).ends_with(0);

    let mut written: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .flat_map(|entry| {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    // A gateway writes large numbers in another way: they are compared as numbers.
    let parsed = |lines: &[String]| -> Vec<(String, f64)> {
        let pair = |line: &String| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        let mut parsed: Vec<_> = lines.iter().map(pair).collect();
        parsed.sort_by(|one, other| one.0.cmp(&other.0));
        parsed
    };
    written.sort();
    let good = parsed(&pushgateway.series(&[]));
    assert_eq!(good, parsed(&written));
    assert!(good.len() > 10, "{good:?}");

    sandbox.set("OPSCTL_REPOSITORY", "/proc/no/such/place");
    let failed = sandbox.run(&["backup"]);
    let after = parsed(&pushgateway.series(&[]));
    let value = |of: &[(String, f64)], name: &str| {
        let series = format!("{name}{{command=\"backup\",database=\"{database}\"}}");
        of.iter().find(|(known, _)| *known == series).map(|(_, value)| *value)
    };
    assert_eq!(value(&after, "opsctl_last_run_exit_status"), Some(f64::from(failed.status)));
    for kept in ["opsctl_last_success_timestamp_seconds", "opsctl_backup_rows"] {
        assert!(value(&after, kept).is_some());
        assert_eq!(value(&after, kept), value(&good, kept));
    }
}

#[test]
fn a_password_is_sent_and_not_shown() {
    const PASSWORD: &str = "kennwort8f3a";
    let (_, mut sandbox) = sandbox();
    // Of the password above.
    let hash = "$2b$04$abcdefghijklmnopqrstuuDI/tM4kvr6UnGWjhaH0r4Hy/oiQosbe";
    let file = sandbox.write("web.yml", &format!("basic_auth_users:\n  opsctl: {hash}\n"));
    let pushgateway = Pushgateway::start(&[&format!("--web.config.file={}", file.display())]);
    let address = &pushgateway.address;
    let url = sandbox.write("url", &format!("http://opsctl:{PASSWORD}@{address}/\n"));
    sandbox.write("opsctl.toml", &format!("[metrics]\npushgateway_file = \"{}\"\n", url.display()));
    let run = sandbox.run(&["backup", "-vv"]).expect(0);
    let credentials = ["--user", &format!("opsctl:{PASSWORD}")];
    assert!(!pushgateway.series(&credentials).is_empty(), "{run:#?}");
    sandbox.set("OPSCTL_PUSHGATEWAY", format!("http://opsctl:{PASSWORD}x@{address}"));
    let refused = sandbox.run(&["backup", "-vv"]).expect(0);
    assert!(refused.stderr.contains("the metrics could not be pushed: status 401"), "{refused:#?}");
    let shown = sandbox.run(&["config", "show"]).expect(0);
    assert!(shown.stdout.contains(&format!("http://{address}/***")), "{shown:#?}");
    for run in [run, refused, shown] {
        assert!(!format!("{run:?}").contains(PASSWORD), "{run:#?}");
    }
}

#[test]
fn a_pushgateway_that_hangs_or_is_gone_is_a_warning() {
    let (_, mut sandbox) = sandbox();
    let receiver = Receiver::start();
    receiver.hang();
    sandbox.set("OPSCTL_PUSHGATEWAY", receiver.url(""));
    let begun = Instant::now();
    let run = sandbox.run(&["backup"]).expect(0);
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    let warning = format!(
        "the metrics could not be pushed: {} did not answer within 5 s",
        receiver.address()
    );
    assert!(run.stderr.contains(&warning), "{run:#?}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    sandbox.set("OPSCTL_PUSHGATEWAY", format!("http://{closed}"));
    let run = sandbox.run(&["backup"]).expect(0);
    assert!(run.stderr.contains("the metrics could not be pushed: cannot reach"), "{run:#?}");
}
