//! `opsctl init`: from nothing to a backup that is proven, by the commands that do the same later on.
//!
//! Each of them is run as a process of its own, as a person would run it, and shown with what it said. Nothing is written before
//! `opsctl doctor` finds nothing bad; no file is replaced, no role is made, and no schedule is installed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use crate::cli::init::InitArgs;
use crate::commands::{Context, Report, Silence, file};
use crate::config;
use crate::db::Target;
use crate::doctor::database::{self, Rights};
use crate::exit::{Exit, Failure};
use crate::schedule::shell_word;
use crate::secret::{self, Secret};
use crate::setup::first_file::{self, Wanted};
use crate::setup::step::{self, Step};
use crate::setup::trial::Trial;

/// Where the configuration of a host is.
const SYSTEM_FILE: &str = "/etc/opsctl/opsctl.toml";
/// Where `schedule print` takes opsctl to be.
const PROGRAM: &str = "/usr/local/bin/opsctl";

pub(super) fn run(context: &Context, args: &InitArgs) -> anyhow::Result<Report> {
    context.set_deadline(context.global.timeout);
    let path = place(context)?;
    let url = url(context, args)?;
    let location = location(context, args)?;
    let target = Target::resolve(Some(&Secret::new(url.as_str())), &context.environment)?;
    let mut connection = target.connect("opsctl init", &context.stop)?;
    let rights = database::rights(&mut connection)?;
    drop(connection);
    let state_dir = context.global.state_dir.as_deref().map(absolute).transpose()?;
    let with = |url: &str| {
        first_file::text(&Wanted {
            url,
            location: &location,
            state_dir: state_dir.as_deref(),
            restore_tests: !args.no_restore_test,
            now: context.now,
        })
    };
    let text = with(&url);

    let mut said = Said::default();
    let trial = Trial::new(&text).context("failed to make a file for a trial")?;
    let is_well =
        said.step(context, trial.path(), &["doctor", "--skip", "cron", "--skip", "notices"])?;
    said.names(trial.path(), &path);
    if !is_well {
        return said.unwell(context, &trial, &path, &rights, args);
    }
    drop(trial);
    if args.dry_run {
        said.text.push_str(&format!(
            "Would write {}:\n\n{}",
            path.display(),
            secret::redact(&with(&config::without_password(&url)))
        ));
        return Ok(said.report(Exit::Done, &path));
    }
    write(&path, &text)?;
    said.text.push_str(&format!("\nWrote {}\n", path.display()));
    let proof: &[&str] = if args.no_restore_test {
        &["verify-backup"]
    } else {
        &["verify-backup", "--restore-test"]
    };
    for step in [&["backup"], proof] {
        if !said.step(context, &path, step)? {
            said.text.push_str(
                "\nThe configuration stays; mend what is wrong, and run that command again.\n",
            );
            let exit = if step == proof { Exit::BadNews } else { Exit::Failed };
            return Ok(said.report(exit, &path));
        }
    }
    said.left_to_do(context, &path, &rights, &location)?;
    Ok(said.report(Exit::Done, &path))
}

/// What was done, and what came of it.
#[derive(Default)]
struct Said {
    text: String,
    steps: Vec<serde_json::Value>,
}

impl Said {
    /// Runs opsctl; returns whether it ended well.
    fn step(&mut self, context: &Context, config: &Path, args: &[&str]) -> anyhow::Result<bool> {
        let line = format!("opsctl {}", args.join(" "));
        tracing::info!("{line}");
        let Step { said, failure } = opsctl(context, config, args)?;
        self.text.push_str(&format!("\n$ {line}\n{said}"));
        if let Some(failure) = &failure {
            self.text.push_str(&format!("{failure}\n"));
        }
        self.steps.push(
            json!({ "command": line, "well": failure.is_none(), "said": said, "error": failure }),
        );
        Ok(failure.is_none())
    }

    /// Calls what was tried by the name that it is to have.
    fn names(&mut self, tried: &Path, path: &Path) {
        let [tried, path] = [tried, path].map(|path| path.to_string_lossy());
        self.text = self.text.replace(&*tried, &path);
        for step in &mut self.steps {
            for name in ["said", "error"] {
                if let Some(serde_json::Value::String(text)) = step.get_mut(name) {
                    *text = text.replace(&*tried, &path);
                }
            }
        }
    }

    /// Says what to do before the next try.
    fn unwell(
        mut self,
        context: &Context,
        trial: &Trial,
        path: &Path,
        rights: &Rights,
        args: &InitArgs,
    ) -> anyhow::Result<Report> {
        self.text
            .push_str("\nNothing was written. Mend what is BAD, and run `opsctl init` again.\n");
        if !args.no_restore_test {
            self.text.push_str(
                "If there is to be no PostgreSQL server on this host: --no-restore-test, and let another host prove the backups.\n",
            );
        }
        if rights.unreadable + rights.filtered + rights.large_objects > 0 {
            self.grants(context, trial.path(), &rights.role)?;
        }
        Ok(self.report(Exit::BadNews, path))
    }

    /// Shows the statements that a role needs.
    fn grants(&mut self, context: &Context, config: &Path, role: &str) -> anyhow::Result<()> {
        let Step { said: sql, .. } = opsctl(context, config, &["setup", "sql", "--role", role])?;
        self.text.push_str(&format!("\n{sql}"));
        Ok(())
    }

    /// Says what a person has to do yet.
    fn left_to_do(
        &mut self,
        context: &Context,
        config: &Path,
        rights: &Rights,
        location: &str,
    ) -> anyhow::Result<()> {
        let program =
            std::env::current_exe().ok().and_then(|path| path.to_str().map(str::to_owned));
        let program = program.unwrap_or_else(|| PROGRAM.to_owned());
        let mut left = Vec::new();
        let option = if config == Path::new(SYSTEM_FILE) {
            String::new()
        } else {
            format!(" --config {}", shell_word(&config.to_string_lossy()))
        };
        if rights.is_superuser {
            left.push(format!(
                "opsctl connects as the superuser {}. What it needs is less, and is printed below (opsctl setup sql --role opsctl{option});\n   \
                 then put that role into `url`.",
                rights.role
            ));
        }
        if location.starts_with("s3://") && context.environment.get("AWS_ACCESS_KEY_ID").is_some() {
            left.push(
                "cron does not see AWS_ACCESS_KEY_ID: put the keys into ~/.aws/credentials, or name a file (`credentials_file` in [repository.s3])."
                    .to_owned(),
            );
        }
        let elsewhere = if program == PROGRAM {
            String::new()
        } else {
            format!(" --program {}", shell_word(&program))
        };
        left.push(format!(
            "Install the schedule, which is printed below:\n   (crontab -l 2>/dev/null; opsctl schedule print{option}{elsewhere}) | crontab -"
        ));
        left.push(format!(
            "Say who is told of failures ([notify], [ping]), and try it: opsctl notify test{option}"
        ));
        left.push(format!("Tomorrow: opsctl status{option}, and opsctl doctor{option}"));
        self.text.push_str("\nThere is a backup, and it is proven. What is left:\n");
        for (n, what) in left.iter().enumerate() {
            self.text.push_str(&format!("{}. {what}\n", n + 1));
        }
        if rights.is_superuser {
            self.grants(context, config, "opsctl")?;
        }
        let Step { said: schedule, failure } =
            opsctl(context, config, &["schedule", "print", "--program", &program])?;
        anyhow::ensure!(
            failure.is_none(),
            "opsctl schedule print failed: {}",
            failure.unwrap_or_default()
        );
        self.text.push_str(&format!("\n{schedule}"));
        self.steps
            .push(json!({ "command": "opsctl schedule print", "well": true, "said": schedule }));
        Ok(())
    }

    fn report(self, exit: Exit, path: &Path) -> Report {
        let json = json!({ "config": path, "steps": self.steps });
        Report { exit, text: self.text.trim_start().to_owned(), json, silence: Silence::Refused }
    }
}

fn opsctl(context: &Context, config: &Path, args: &[&str]) -> anyhow::Result<Step> {
    step::run(args, config, context.environment.variables(), &context.stop)
}

/// Returns where the configuration will be, if nothing is there.
fn place(context: &Context) -> anyhow::Result<PathBuf> {
    let path = match &context.global.config {
        Some(path) => absolute(path)?,
        None if rustix::process::geteuid().is_root() => PathBuf::from(SYSTEM_FILE),
        None => absolute(Path::new("opsctl.toml"))?,
    };
    if path.symlink_metadata().is_ok() { Err(is_there(&path)) } else { Ok(path) }
}

fn is_there(path: &Path) -> anyhow::Error {
    let failure = Failure::new(Exit::Usage, format!("`{}` is there already", path.display()));
    let hint = if is_untouched(path) {
        "It is as the Debian package installs it. Set it up as the user that the units have: docs/faq.md has the lines, which begin with `sudo -u opsctl opsctl init --config /var/lib/opsctl/opsctl.toml`."
    } else {
        "`opsctl doctor` says whether all is well with it; --config FILE writes another one."
    };
    failure.hint(hint).into()
}

/// Is nothing in force in it but what a package says?
fn is_untouched(path: &Path) -> bool {
    let table =
        std::fs::read_to_string(path).ok().and_then(|text| text.parse::<toml::Table>().ok());
    table.is_some_and(|table| table.keys().eq(["state_dir"]))
}

/// Writes the configuration, which nobody else may read: there may be a password in it.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        let made = std::fs::create_dir_all(folder);
        made.with_context(|| format!("failed to make `{}`", folder.display()))?;
    }
    // It may have appeared since it was looked for.
    let is_new = file::put_new(path, text.as_bytes(), file::OWN)?;
    if is_new { Ok(()) } else { Err(is_there(path)) }
}

fn url(context: &Context, args: &InitArgs) -> anyhow::Result<String> {
    if let Some(url) = &args.url {
        if config::has_password(url) || secret::redact(url) != *url {
            let failure = Failure::new(
                Exit::Usage,
                "--url has a password, which every user of this host can see",
            );
            return Err(failure
                .hint("Put it into ~/.pgpass, or the whole URL into DATABASE_URL.")
                .into());
        }
        return Ok(url.clone());
    }
    if let Some(url) = context.environment.get("DATABASE_URL") {
        return Ok(url.to_owned());
    }
    ask("The database, such as postgresql://opsctl@db.example.com/members", None, "--url URL")
}

/// Returns where backups go; a directory with its whole path.
fn location(context: &Context, args: &InitArgs) -> anyhow::Result<String> {
    let default =
        if rustix::process::geteuid().is_root() { "/var/backups/opsctl" } else { "./backups" };
    let location = match &args.repository {
        Some(location) => location.clone(),
        None => ask(
            "Where backups go: a directory, or s3://bucket/prefix",
            Some(default),
            "--repository WHERE",
        )?,
    };
    if location.starts_with("s3://") {
        return Ok(location);
    }
    let path = absolute(&directory(&location, context.environment.home())?)?;
    path.to_str().map(str::to_owned).context("the path of the repository is not valid UTF-8")
}

/// Takes what was typed for a directory: `~/` is what a shell makes of it, and what looks like another kind of place is none.
fn directory(typed: &str, home: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let refused = |what: &str, hint: &str| {
        let message = format!("where backups go: {what}");
        anyhow::Error::from(Failure::new(Exit::Usage, message).hint(hint))
    };
    if let Some(rest) = typed.strip_prefix('~') {
        let below = rest.strip_prefix('/').or(rest.is_empty().then_some(""));
        let path = below.and_then(|below| Some(home?.join(below)));
        return path.ok_or_else(|| {
            refused(
                "only a shell knows what this `~` is",
                "Write the directory with its whole path.",
            )
        });
    }
    let scheme = typed.split_once(':').map_or("", |(scheme, _)| scheme);
    let in_schemes = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(in_schemes) {
        return Err(refused(
            &format!("nothing is known that begins with `{scheme}:`"),
            "Write a directory such as /srv/backups (./NAME if there is a colon in it), or s3://bucket/prefix.",
        ));
    }
    Ok(PathBuf::from(typed))
}

/// Asks somebody at a terminal.
fn ask(what: &str, default: Option<&str>, option: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let failure = Failure::new(Exit::Usage, format!("{option} is missing"));
        return Err(failure.hint("Without a terminal nobody can be asked.").into());
    }
    let shown = default.map_or_else(String::new, |default| format!(" [{default}]"));
    let mut stderr = std::io::stderr();
    write!(stderr, "{what}{shown}: ")?;
    stderr.flush()?;
    let mut typed = String::new();
    stdin.lock().read_line(&mut typed)?;
    match (typed.trim(), default) {
        ("", Some(default)) => Ok(default.to_owned()),
        ("", None) => Err(Failure::new(Exit::Usage, format!("{option} is missing")).into()),
        (typed, _) => Ok(typed.to_owned()),
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("`{}` is no path", path.display()))
}
