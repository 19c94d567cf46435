//! The options of `opsctl schedule print`, and which of them go together.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Print what starts opsctl: a crontab, units of systemd, manifests of Kubernetes
#[derive(Args, Debug)]
#[command(after_help = SCHEDULE_EXITS)]
pub(crate) struct ScheduleArgs {
    #[command(subcommand)]
    pub(crate) command: ScheduleCommand,
}

/// What can be done with the schedule.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Print ready files by the times of the schedule in the configuration
    ///
    /// Nothing is installed. Times are in the time zone of the host, and for Kubernetes in --time-zone.
    #[command(after_help = SCHEDULE_EXITS)]
    Print(SchedulePrintArgs),
}

/// For whom, and what cannot be known from the configuration.
#[derive(Args, Debug)]
pub(crate) struct SchedulePrintArgs {
    /// Who is to start opsctl
    #[arg(long, value_enum, default_value = "crontab")]
    pub(crate) format: ScheduleFormat,
    /// Write files into this directory instead of printing them
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long, requires = "out")]
    pub(crate) force: bool,
    /// Where opsctl is installed (crontab, systemd)
    #[arg(long, value_name = "PATH", default_value = "/usr/local/bin/opsctl")]
    pub(crate) program: PathBuf,
    /// Whom cron tells of trouble (crontab) [default: the owner of the crontab]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_word)]
    pub(crate) mail_to: Option<String>,
    /// The user that runs opsctl (systemd) [default: opsctl]
    #[arg(long, value_name = "NAME", value_parser = parse_word)]
    pub(crate) user: Option<String>,
    /// The container image (kubernetes) [default: opsctl and its version]
    #[arg(long, value_name = "IMAGE", value_parser = parse_word)]
    pub(crate) image: Option<String>,
    /// The namespace (kubernetes) [default: kubectl's]
    #[arg(long, value_name = "NAME", value_parser = parse_label)]
    pub(crate) namespace: Option<String>,
    /// The Secret whose keys become environment variables (kubernetes) [default: opsctl]
    #[arg(long, value_name = "NAME", value_parser = parse_label)]
    pub(crate) secret: Option<String>,
    /// The config map that has opsctl.toml (kubernetes) [default: opsctl]
    #[arg(long, value_name = "NAME", value_parser = parse_label)]
    pub(crate) config_map: Option<String>,
    /// The time zone of the schedule, such as Europe/Berlin (kubernetes) [default: Etc/UTC]
    #[arg(long, value_name = "ZONE", value_parser = parse_zone)]
    pub(crate) time_zone: Option<chrono_tz::Tz>,
}

/// Who starts opsctl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ScheduleFormat {
    Crontab,
    Systemd,
    Kubernetes,
}

impl SchedulePrintArgs {
    /// Refuses an option that would have no effect, and a program that nobody would find.
    pub(crate) fn check(&self) -> Result<(), String> {
        use ScheduleFormat::{Crontab, Kubernetes, Systemd};
        let options = [
            ("--mail-to", self.mail_to.is_some(), Crontab),
            ("--user", self.user.is_some(), Systemd),
            ("--image", self.image.is_some(), Kubernetes),
            ("--namespace", self.namespace.is_some(), Kubernetes),
            ("--secret", self.secret.is_some(), Kubernetes),
            ("--config-map", self.config_map.is_some(), Kubernetes),
            ("--time-zone", self.time_zone.is_some(), Kubernetes),
        ];
        for (option, is_given, format) in options {
            if is_given && format != self.format {
                let format = format!("{format:?}").to_lowercase();
                return Err(format!("{option} goes with --format {format} only"));
            }
        }
        if !self.program.is_absolute()
            || self.program.file_name().is_none_or(|name| name != "opsctl")
        {
            return Err(
                "--program is the whole path of a program that is called `opsctl`".to_owned()
            );
        }
        Ok(())
    }
}

const SCHEDULE_EXITS: &str = "\
Exit statuses: 0 printed; 1 failed, or a file is there already; 2 command line; 10 configuration.";

/// Takes what can stand in any of the formats without quotes.
fn parse_word(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain);
    let taken = is_plain.then(|| text.to_owned());
    taken.ok_or_else(|| "use letters, digits and `-_./:@+`".to_owned())
}

/// Takes a name as Kubernetes has them (RFC 1123).
fn parse_label(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = (1..=63).contains(&text.len()) && text.chars().all(plain);
    let is_name = is_name && !text.starts_with('-') && !text.ends_with('-');
    let taken = is_name.then(|| text.to_owned());
    taken.ok_or_else(|| "use 1 to 63 lower case letters, digits and `-`".to_owned())
}

fn parse_zone(text: &str) -> Result<chrono_tz::Tz, String> {
    text.parse().map_err(|_| "use a name such as Europe/Berlin or Etc/UTC".to_owned())
}
