//! Metrics: Prometheus' own parser accepts what is written, and a failure hides nothing.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Cluster, Sandbox, promtool, stock};

#[test]
fn prometheus_reads_what_every_run_writes() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE members AS SELECT generate_series(1, 7) AS id");
    let mut sandbox = Sandbox::new(&cluster.url(&database));
    let dir = sandbox.path("textfiles");
    std::fs::create_dir(&dir).unwrap();
    sandbox.write("opsctl.toml", "[metrics]\ntextfile_dir = \"textfiles\"\n");
    sandbox.run(&["backup", "--dry-run"]).ends_with(0);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    // The collector is another user, and has to read it whatever the umask is.
    let backup = sandbox.command(&["backup", "--now", "2026-11-21T02:00:00Z"]);
    let mut strict = Command::new("sh");
    strict.args(["-c", "umask 077 && exec \"$0\" \"$@\""]).arg(backup.get_program());
    strict.args(backup.get_args()).env_clear().current_dir(sandbox.dir.path());
    strict.envs(backup.get_envs().filter_map(|(name, value)| Some((name, value?))));
    stock(&mut strict);
    sandbox.run(&["verify-backup", "--restore-test"]).ends_with(0);

    let mut names: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let plain = database.replace('_', "%5F");
    let name = |command: &str| format!("opsctl_{command}_{plain}.prom");
    assert_eq!(names, [name("backup"), name("verify-backup.--restore-test")]);
    for name in &names {
        let file = dir.join(name);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let text = std::fs::File::open(&file).unwrap();
        stock(promtool().args(["check", "metrics"]).stdin(text));
    }
    let labels = format!("{{command=\"backup\",database=\"{database}\"}}");
    let of_backup = || std::fs::read_to_string(dir.join(name("backup"))).unwrap();
    assert!(of_backup().contains(&format!("\nopsctl_backup_rows{labels} 7\n")), "{}", of_backup());
    let success = |text: &str| {
        let line = text.lines().find(|l| l.starts_with("opsctl_last_success_timestamp_seconds{"));
        line.map(str::to_owned)
    };
    let good = success(&of_backup());
    assert!(
        good.as_ref()
            .unwrap()
            .starts_with(&format!("opsctl_last_success_timestamp_seconds{labels} 17952264"))
    );

    sandbox.set("OPSCTL_REPOSITORY", "/proc/no/such/place");
    let failed = sandbox.run(&["backup"]);
    assert_ne!(failed.status, 0);
    assert_eq!(success(&of_backup()), good);
    let status = format!("\nopsctl_last_run_exit_status{labels} {}\n", failed.status);
    assert!(of_backup().contains(&status), "{}", of_backup());

    // Nor does one that comes before any database, nor a question about nothing.
    sandbox.run(&["backup", "--repository", "backups"]).ends_with(0);
    assert!(of_backup().contains(&format!("\nopsctl_last_run_exit_status{labels} 0\n")));
    sandbox.set("SSL_CERT_FILE", "/nowhere/ca.pem");
    sandbox.run(&["backup", "list", "--repository", "s3://bucket/x"]).ends_with(13);
    assert!(of_backup().contains(&format!("\nopsctl_last_run_exit_status{labels} 0\n")));
    sandbox.run(&["backup", "--repository", "s3://bucket/x"]).ends_with(13);
    assert!(of_backup().contains(&format!("\nopsctl_last_run_exit_status{labels} 13\n")));
    sandbox.unset("SSL_CERT_FILE");

    // A directory that is not there is a warning.
    std::fs::remove_dir_all(&dir).unwrap();
    sandbox.unset("OPSCTL_REPOSITORY");
    let run = sandbox.run(&["verify-backup", "--repository", "backups"]).expect(0);
    assert!(run.stderr.contains("the metrics could not be written into"), "{run:#?}");
}

#[test]
fn prometheus_accepts_the_rules_and_they_fire_when_they_should() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/prometheus-alerts.yml");
    stock(promtool().args(["check", "rules"]).arg(&rules));
    let dir = tempfile::tempdir().unwrap();
    // One day of time() is 1440 minutes of samples; the last success was at second 0.
    let test = format!(
        "rule_files: ['{}']
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'opsctl_last_success_timestamp_seconds{{command=\"backup\",database=\"ip2a\"}}'
        values: '0x2000'
      - series: 'opsctl_last_run_exit_status{{command=\"backup\",database=\"ip2a\"}}'
        values: '0x1000 12x1000'
      - series: 'opsctl_last_success_timestamp_seconds{{command=\"verify-backup\",database=\"ip2a\"}}'
        values: '0x4000'
    alert_rule_test:
      - {{ eval_time: 26h, alertname: OpsctlBackupTooOld }}
      - eval_time: 27h
        alertname: OpsctlBackupTooOld
        exp_alerts:
          - exp_labels: {{ severity: P1, command: backup, database: ip2a }}
            exp_annotations:
              summary: The last good backup of ip2a is 1d 3h 0m 0s old
              runbook: runbooks/backup-failed.md
      - {{ eval_time: 16h, alertname: OpsctlFailed }}
      - eval_time: 17h
        alertname: OpsctlFailed
        exp_alerts:
          - exp_labels: {{ severity: P2, command: backup, database: ip2a }}
            exp_annotations:
              summary: opsctl backup on ip2a ended with status 12
              runbook: runbooks/exit-codes.md
      - {{ eval_time: 27h, alertname: OpsctlSilent }}
      - {{ eval_time: 50h, alertname: OpsctlNotVerified }}
      - eval_time: 52h
        alertname: OpsctlNotVerified
        exp_alerts:
          - exp_labels: {{ severity: P3, database: ip2a }}
            exp_annotations:
              summary: The backups of ip2a were last read back 2d 4h 0m 0s ago
              runbook: runbooks/verify-backup.md
  - interval: 5m
    input_series:
      - series: 'opsctl_last_success_timestamp_seconds{{command=\"backup\",database=\"ip2a\"}}'
        values: '0x3000'
      - series: 'opsctl_last_success_timestamp_seconds{{command=\"backup\",database=\"proven\"}}'
        values: '0x3000'
      - series: 'opsctl_last_success_timestamp_seconds{{command=\"verify-backup --restore-test\",database=\"proven\"}}'
        values: '0x3000'
    alert_rule_test:
      - {{ eval_time: 215h, alertname: OpsctlNeverProven }}
      - eval_time: 217h
        alertname: OpsctlNeverProven
        exp_alerts:
          - exp_labels: {{ severity: P3, command: backup, database: ip2a }}
            exp_annotations:
              summary: No backup of ip2a was ever proven by a restore
              runbook: runbooks/status.md
  - interval: 1m
    input_series: []
    alert_rule_test:
      - eval_time: 27h
        alertname: OpsctlSilent
        exp_alerts:
          - exp_labels: {{ severity: P1, command: backup }}
            exp_annotations:
              summary: Nothing is known of any backup
              runbook: runbooks/status.md
",
        rules.display()
    );
    let file = dir.path().join("test.yml");
    std::fs::write(&file, test).unwrap();
    stock(promtool().args(["test", "rules"]).arg(&file));
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("opsctl_") && *word != "opsctl_");
    words.map(str::to_owned).collect()
}

#[test]
fn the_document_has_every_metric_and_the_rules_name_no_other() {
    let documented = names(&read("docs/metrics.md"));
    let source = read("src/metrics/mod.rs");
    assert_eq!(documented, names(source.split("#[cfg(test)]").next().unwrap()));
    let used = names(&read("contrib/prometheus-alerts.yml"));
    assert!(used.is_subset(&documented), "{used:?}");
}

#[test]
fn the_dashboard_shows_every_metric_in_words_that_prometheus_reads() {
    let dashboard: Value = serde_json::from_str(&read("contrib/grafana-dashboard.json")).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "command", "database"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());

    let mut used = names(&read("contrib/prometheus-alerts.yml"));
    let mut rules = Vec::new();
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            used.extend(names(expression));
            let filled = expression.replace("$command", "backup").replace("$database", "a|b");
            assert!(!filled.contains('$'), "{filled}");
            rules.push(json!({ "record": format!("panel:{}", rules.len()), "expr": filled }));
        }
    }
    assert_eq!(used, names(&read("docs/metrics.md")));
    // Rules are YAML, and JSON is YAML.
    let rules = json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules.to_string()).unwrap();
    stock(promtool().args(["check", "rules"]).arg(file.path()));
}
