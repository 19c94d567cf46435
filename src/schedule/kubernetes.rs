//! `CronJob`s of Kubernetes, in one document of YAML each. Configuration and secrets are named, not printed.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Job, calendar, comment};

/// What manifests have to know besides the jobs. Names are those of the API: no quotes, no spaces.
#[derive(Clone, Debug)]
pub(crate) struct Kubernetes<'a> {
    pub(crate) image: &'a str,
    /// None leaves it to `kubectl`.
    pub(crate) namespace: Option<&'a str>,
    /// The Secret whose keys become environment variables.
    pub(crate) secret: &'a str,
    /// The `ConfigMap` that has `opsctl.toml`.
    pub(crate) config_map: &'a str,
    /// An IANA name.
    pub(crate) time_zone: &'a str,
    /// Is the history outside of the pods?
    pub(crate) history_lasts: bool,
    /// The configured directories that no volume is mounted at.
    pub(crate) directories: Vec<&'a str>,
}

/// How much longer than opsctl's own deadline a job may take: its pod has to find a place and an image first.
const PATIENCE: u64 = 600;
/// Below ten seconds the controller, which looks every ten, may never start anything.
const LEAST_DEADLINE: u64 = 30;
const MOST_DEADLINE: u64 = 3600;

/// Without a history every run would be late.
const SUSPENDED: &str = "
  # It judges by the history, which goes with the pod: set `history.url` in opsctl.toml, and this to false.
  suspend: true";

/// Prints the manifests.
pub(crate) fn kubernetes(jobs: &[Job<'_>], settings: &Kubernetes<'_>) -> String {
    let Kubernetes { secret, config_map, .. } = settings;
    let mut text = format!(
        "# Printed by `opsctl schedule print --format kubernetes`. It names what has to be there:\n\
         #   kubectl create configmap {config_map} --from-file=opsctl.toml\n\
         #   kubectl create secret generic {secret} --from-env-file=opsctl.env    (DATABASE_URL, AWS_ACCESS_KEY_ID, …)\n\
         # The image has opsctl in its PATH, the client programs of the server's major version, tzdata, and a user 10001 in\n\
         # its /etc/passwd. A restore test wants the server's programs as well, and room in /tmp for a whole database.\n"
    );
    for dir in &settings.directories {
        // No line feed, whatever the name is.
        let dir = serde_json::Value::from(*dir);
        writeln!(text, "# The repository at {dir} is a directory: mount a volume there in each job, or use a bucket.").ok();
    }
    for job in jobs {
        text += &cron_job(job, settings);
    }
    text
}

fn cron_job(job: &Job<'_>, settings: &Kubernetes<'_>) -> String {
    let Kubernetes { image, namespace, secret, config_map, time_zone, .. } = settings;
    let Job { name, about, timeout, .. } = job;
    let about = comment(about);
    let schedule = calendar::cron(job.times);
    let namespace = namespace.map(|name| format!("\n  namespace: {name}")).unwrap_or_default();
    let suspended = match name.as_str() {
        "status" if !settings.history_lasts => SUSPENDED,
        _ => "",
    };
    let arguments = serde_json::Value::from(job.arguments.clone());
    let late = starting_deadline(job.times.shortest_gap());
    let deadline = timeout.as_secs() + PATIENCE;
    format!(
        "---
{about}apiVersion: batch/v1
kind: CronJob
metadata:
  name: opsctl-{name}{namespace}
  labels: {{ app.kubernetes.io/name: opsctl, app.kubernetes.io/component: {name} }}
spec:
  schedule: \"{schedule}\"
  timeZone: {time_zone}
  concurrencyPolicy: Forbid{suspended}
  startingDeadlineSeconds: {late}
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      activeDeadlineSeconds: {deadline}
      # The next time is soon enough: what failed for a reason fails again.
      backoffLimit: 0
      template:
        metadata:
          labels: {{ app.kubernetes.io/name: opsctl, app.kubernetes.io/component: {name} }}
        spec:
          restartPolicy: Never
          automountServiceAccountToken: false
          enableServiceLinks: false
          terminationGracePeriodSeconds: 30
          securityContext:
            runAsNonRoot: true
            runAsUser: 10001
            runAsGroup: 10001
            fsGroup: 10001
            seccompProfile: {{ type: RuntimeDefault }}
          containers:
            - name: opsctl
              image: {image}
              command: [opsctl]
              args: {arguments}
              env:
                - {{ name: HOME, value: /tmp }}
                - {{ name: OPSCTL_CONFIG, value: /etc/opsctl/opsctl.toml }}
                - {{ name: OPSCTL_STATE_DIR, value: /var/lib/opsctl }}
                - {{ name: TZ, value: {time_zone} }}
              envFrom:
                - secretRef: {{ name: {secret} }}
              resources:
                requests: {{ cpu: 250m, memory: 256Mi }}
                limits: {{ cpu: \"2\", memory: 2Gi }}
              securityContext:
                allowPrivilegeEscalation: false
                readOnlyRootFilesystem: true
                capabilities: {{ drop: [ALL] }}
              volumeMounts:
                - {{ name: config, mountPath: /etc/opsctl, readOnly: true }}
                - {{ name: state, mountPath: /var/lib/opsctl }}
                - {{ name: tmp, mountPath: /tmp }}
          volumes:
            - name: config
              configMap: {{ name: {config_map} }}
            - name: state
              emptyDir: {{ sizeLimit: 256Mi }}
            - name: tmp
              emptyDir: {{}}
"
    )
}

/// Returns how late a job may still be started, in seconds: not so late that the next one is due.
fn starting_deadline(gap: Duration) -> u64 {
    (gap.as_secs() / 2).clamp(LEAST_DEADLINE, MOST_DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Kubernetes<'static> {
        Kubernetes {
            image: "opsctl:1.2.3",
            namespace: Some("ops"),
            secret: "opsctl",
            config_map: "opsctl",
            time_zone: "Europe/Berlin",
            history_lasts: false,
            directories: vec!["/var/backups/opsctl"],
        }
    }

    #[test]
    fn prints_manifests() {
        crate::schedule::testing::jobs(|jobs| {
            insta::assert_snapshot!(kubernetes(jobs, &settings()));
        });
    }

    #[test]
    fn status_waits_for_a_history_that_lasts() {
        crate::schedule::testing::jobs(|jobs| {
            let mut job = jobs[0].clone();
            let text = |job: &Job<'_>, history_lasts| {
                cron_job(job, &Kubernetes { history_lasts, ..settings() })
            };
            assert!(!text(&job, false).contains("suspend"));
            job.name = "status".to_owned();
            assert!(
                text(&job, false).contains("suspend: true")
                    && !text(&job, true).contains("suspend")
            );
        });
    }

    #[test]
    fn a_job_is_started_late_but_never_beside_the_next() {
        let seconds = |gap| starting_deadline(Duration::from_secs(gap));
        assert_eq!([60, 300, 3600, 86_400].map(seconds), [30, 150, 1800, 3600]);
    }
}
