//! The checklists, and the pages about planned work and incidents, read where everything is looked after: their lines are typed, and
//! what they say is to be seen.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::certificates::{Authority, Request, serve};
use crate::support::reader::{But, Reader};
use crate::support::receiver::Receiver;
use crate::support::{Cluster, Run, Sandbox, installed, stock};

/// A database with backups, an archive, a channel, a certificate and a log, all of them looked after.
struct Site {
    sandbox: Sandbox,
    cluster: Cluster,
    channel: Receiver,
}

impl Site {
    fn new() -> Site {
        let cluster = Cluster::start(&installed(), &[], &[]);
        cluster.sql("postgres", "CREATE DATABASE members TEMPLATE template0");
        cluster.sql(
            "members",
            "CREATE TABLE members AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 1000) n;
             CREATE TABLE audit_logs (id bigserial PRIMARY KEY, at timestamptz NOT NULL, what text);
             INSERT INTO audit_logs (at, what) SELECT date '2024-03-05' + n * interval '1 day', 'it' FROM generate_series(0, 50) n",
        );
        let mut sandbox = Sandbox::new(&cluster.url("members"));
        let programs = cluster.bin_dir.display();
        sandbox.set("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"));
        sandbox.set("PGHOST", &cluster.dir).set("PGPORT", &cluster.port).set("PGUSER", "postgres");
        let key = sandbox.path("key");
        stock(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key));
        let authority = Authority::new(sandbox.dir.path(), "root");
        let request = Request { name: "localhost", from: -9, to: 300, authority: false };
        let (pem, key) = authority.sign(request);
        let port = serve(&[&pem], &key).port();
        let channel = Receiver::start();
        sandbox.write("web.log", "");
        let site = Site { sandbox, cluster, channel };
        site.tells(&site.channel);
        // How busy and how full the machine of the tests is, and what its distribution has, is nobody's news here.
        site.configure(&format!(
            "[repository]\nlocation = \"backups\"\n[repository.retention]\nkeep_days = 30\n\
             [windows]\nnow = \"daily 00:00-24:00\"\nmonthly = \"daily 00:00-24:00\"\n[maintain]\n\
             [notify.channels.ops]\nwebhook_file = \"hook\"\n\
             [contacts]\non_call = \"Ida\"\nincident_commander = \"Ole\"\ndba = \"Ida\"\nsecurity = \"Ute\"\ndata_owner = \"Uwe\"\n\
             provider = \"Acme\"\nstatus_page = \"https://status.example.com\"\nage_identity = \"the safe\"\n\
             [[audit]]\ntable = \"audit_logs\"\ntime_column = \"at\"\nlocation = \"archive\"\nsigning_key = \"key\"\n\
             [[health.tls]]\nname = \"www\"\nhost = \"localhost\"\nport = {port}\nca_file = \"{}\"\n\
             [[health.dns]]\nname = \"www\"\nhost = \"localhost\"\n[[health.log]]\nname = \"web\"\npath = \"web.log\"\n\
             [[health.http]]\nname = \"hook\"\nurl = \"{}\"\n\
             [health.disk]\nwarning = 100\ncritical = 100\n[health.memory]\nwarning = 0\ncritical = 0\n\
             [health.inodes]\nwarning = 100\ncritical = 100\n[health.disk-full]\nwarning = 0\ncritical = 0\n\
             [health.cpu]\nwarning = 100\ncritical = 100\n[health.load]\nwarning = 1e6\ncritical = 1e6\n\
             [health.minor-version]\nwarning = 1000\n[health.repository]\nwarning = 60\n\
             [health.connect]\nwarning = 60\ncritical = 60\n[health]\ntimeout = \"60s\"\n",
            authority.file(),
            site.channel.url("")
        ));
        for command in [
            &["archive-audit"][..],
            &["backup"],
            &["verify-backup", "--restore-test"],
            &["verify-backup"],
        ] {
            site.sandbox.run(command).ends_with(0);
        }
        site
    }

    fn configure(&self, text: &str) {
        let path = self.sandbox.write("opsctl.toml", text);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// How many messages the channel got; checks look whether it is there, too.
    fn told(&self) -> usize {
        self.channel.requests().iter().filter(|request| request.method == "POST").count()
    }

    /// Writes who is told; the whole of it is a secret.
    fn tells(&self, receiver: &Receiver) {
        let path = self.sandbox.write("hook", &receiver.url(""));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn reads(&self, page: &'static str) -> Reader<'_> {
        Reader::of(page, &self.sandbox)
    }
}

/// On this machine nothing starts opsctl, and `doctor` says so.
const NO_CRON: But = But::Ends(3);

fn only_cron_is_missing(seen: &[Run]) {
    let doctor = seen.iter().find(|run| run.stdout.contains("cron:")).unwrap();
    assert!(doctor.stdout.contains("\n1 finding, "), "{doctor:#?}");
}

#[test]
fn the_checklists_are_done_where_all_is_well() {
    let site = Site::new();
    let (daily, weekly) = (site.reads("daily"), site.reads("weekly"));
    let quarterly = site.reads("quarterly");
    daily.does("Check", &[]);
    let seen = daily.does("Verify", &[]);
    assert_eq!(seen[0].stdout, "");
    let seen = weekly.does("Check", &[("opsctl doctor", NO_CRON)]);
    only_cron_is_missing(&seen);
    assert!(site.sandbox.path("report.html").exists());
    weekly.does("Verify", &[]);
    let anchor = site.sandbox.path("audit.anchor");
    let monthly =
        site.reads("monthly").with("/mnt/elsewhere/audit.anchor", anchor.to_str().unwrap());
    monthly.does("Check", &[]);
    assert!(anchor.exists());
    monthly.does("Verify", &[]);
    let told = site.told();
    let seen = quarterly.does("Check", &[("opsctl doctor", NO_CRON)]);
    assert!(!seen[0].stdout.contains("is not in the configuration"), "{seen:#?}");
    assert_eq!(site.told(), told + 1);
    quarterly.does("Verify", &[("opsctl doctor", NO_CRON)]);
}

#[test]
fn an_incident_is_handled_by_the_page() {
    let site = Site::new();
    let sandbox = &site.sandbox;
    let elsewhere = sandbox.path("evidence").display().to_string();
    std::fs::create_dir(&elsewhere).unwrap();
    let reader = site.reads("incident-response").with("/var/tmp", &elsewhere);
    // Somebody has stopped the server.
    site.cluster.pg_ctl(&["stop", "-m", "fast"]);
    let seen = reader.does(
        "Check",
        &[("opsctl health-check incident", But::Ends(0)), ("opsctl health-check", But::Ends(2))],
    );
    assert!(seen[1].stdout.starts_with("CRITICAL  connect/"), "{seen:#?}");
    let mut files = std::fs::read_dir(&elsewhere).unwrap().map(|entry| entry.unwrap().path());
    let folder = files.find(|path| path.is_dir()).unwrap();
    assert!(folder.join("timeline.md").exists());
    site.cluster.start_again();
    reader.does("Verify", &[]);
}

#[test]
fn planned_work_is_done_in_its_window_by_the_page() {
    let site = Site::new();
    let maintenance = site.reads("maintenance-window");
    maintenance.does("Check", &[]);
    let told = site.told();
    let seen = maintenance.does("Act", &[]);
    assert!(seen.last().unwrap().stdout.contains("The silence is over."), "{seen:#?}");
    let seen = maintenance.does("Verify", &[]);
    assert!(seen[2].stdout.contains(" over "), "{seen:#?}");
    assert_eq!(site.told(), told);
    // The page about silences alone.
    let silence = site.reads("silence");
    for part in ["Check", "Act", "Verify"] {
        silence.does(part, &[]);
    }
    // A window that is closed says when it opens.
    let text = std::fs::read_to_string(site.sandbox.path("opsctl.toml")).unwrap();
    site.configure(&text.replace(
        "now = \"daily 00:00-24:00\"\nmonthly = \"daily 00:00-24:00\"",
        "weekly = \"off\"",
    ));
    let closed =
        site.sandbox.run(&["db-maintain", "--window", "any", "--now", "2026-11-10T12:00:00Z"]);
    assert!(closed.expect(11).stderr.contains("it opens 2026-12-06 01:00 UTC"));
}

#[test]
fn a_change_is_made_by_the_checklist() {
    let site = Site::new();
    let reader = site.reads("change-checklist");
    reader.does("Check", &[]);
    let seen = reader.does("Act", &[("opsctl doctor", NO_CRON)]);
    only_cron_is_missing(&seen);
    reader.does("Verify", &[]);
    for file in ["before.json", "after.json"] {
        let text = std::fs::read_to_string(site.sandbox.path(file)).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["status"], "ok", "{report:#}");
    }
    assert!(site.sandbox.path("before.html").exists());
}

#[test]
fn a_channel_that_is_broken_is_mended_by_the_page() {
    let site = Site::new();
    let receiver = Receiver::start();
    site.tells(&receiver);
    receiver.answer(404);
    let reader = site.reads("notify");
    let seen = reader.does("Check", &[("opsctl notify", But::Ends(1))]);
    assert!(seen[2].stdout.contains("404"), "{seen:#?}");
    site.tells(&site.channel);
    reader.does("Act", &[]);
    reader.does("Verify", &[]);
    // And the two that look at the installation itself.
    let doctor = site.reads("doctor");
    for part in ["Check", "Verify"] {
        only_cron_is_missing(&doctor.does(part, &[("opsctl doctor", NO_CRON)]));
    }
}

#[test]
fn a_number_leads_to_what_is_wrong_by_the_page() {
    let site = Site::new();
    let reader = site.reads("exit-codes");
    let seen = reader.does("Check", &[]);
    assert!(seen[0].stdout.contains("configuration is valid"), "{seen:#?}");
    let good = std::fs::read_to_string(site.sandbox.path("opsctl.toml")).unwrap();
    site.configure(&good.replace("keep_days = 30", "keep_day = 30"));
    site.sandbox.run(&["backup"]).ends_with(10);
    let seen = reader.does("Check", &[("opsctl config", But::Ends(10))]);
    assert!(seen[0].stdout.contains("opsctl.toml:4: unknown key `keep_day`"), "{seen:#?}");
}

#[test]
fn what_starts_opsctl_is_printed_by_the_page() {
    let site = Site::new();
    let units = site.sandbox.path("units");
    std::fs::create_dir(&units).unwrap();
    let reader = site.reads("schedule").with("/etc/systemd/system", units.to_str().unwrap());
    reader.does("Check", &[]);
    let left_out = || But::IsLeftOut("it would change the machine of whoever runs the tests");
    let no_cluster = || But::IsLeftOut("there is no Kubernetes here");
    reader.does(
        "Act",
        &[
            ("crontab", left_out()),
            ("useradd", left_out()),
            ("systemctl", left_out()),
            ("kubectl", no_cluster()),
        ],
    );
    for unit in ["opsctl-backup.timer", "opsctl-archive-audit.service"] {
        assert!(units.join(unit).exists(), "{unit}");
    }
    let manifests = std::fs::read_to_string(site.sandbox.path("opsctl.yaml")).unwrap();
    assert!(manifests.contains("timeZone: Europe/Berlin"), "{manifests}");
    let crontab = std::fs::read_to_string(site.sandbox.path("opsctl.crontab")).unwrap();
    assert!(crontab.contains("MAILTO=ops@example.com"), "{crontab}");
    reader.does("Verify", &[]);
}
