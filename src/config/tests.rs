//! What comes out of `load`: precedence, choices, and the files under `tests/fixtures/config`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use proptest::prelude::*;
use tempfile::TempDir;

use super::find::Host;
use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/config");
const RECIPIENT: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
const OTHER_RECIPIENT: &str = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg";

/// A directory to run in, with nothing from this machine.
struct Place {
    directory: TempDir,
    host: Host,
}

impl Place {
    fn new() -> Place {
        let directory = tempfile::tempdir().unwrap();
        let host = Host {
            uid: rustix::process::geteuid().as_raw(),
            system_file: directory.path().join("etc/opsctl.toml"),
        };
        Place { directory, host }
    }

    fn with_file(text: &str) -> Place {
        let place = Place::new();
        place.write("opsctl.toml", text, 0o600);
        place
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(mode).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn load<const N: usize>(
        &self,
        overrides: &Overrides,
        environment: [(&str, &str); N],
    ) -> Result<Loaded, String> {
        let environment = Environment::from(environment);
        resolve::load(overrides, &environment, self.path(), &self.host)
            .map_err(|error| self.without_path(&error.to_string()))
    }

    /// Shows the settings that `keys` asks for, one a line, with their sources.
    fn shown<const N: usize>(
        &self,
        overrides: &Overrides,
        environment: [(&str, &str); N],
        keys: &[&str],
    ) -> String {
        let loaded = match self.load(overrides, environment) {
            Ok(loaded) => loaded,
            Err(message) => return message,
        };
        let mut text = String::new();
        for Shown { key, value, source } in show(&loaded) {
            if keys.contains(&key.as_str()) {
                writeln!(text, "{key} = {value} ({source})").unwrap();
            }
        }
        self.without_path(&text)
    }

    fn without_path(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().display()), "")
    }
}

fn home(place: &Place) -> String {
    place.path().join("home").display().to_string()
}

/// Loads a fixture from a private directory; those beside it are there as well.
fn load_fixture(path: &Path) -> (Place, Result<Loaded, Error>) {
    let place = Place::new();
    for name in ["database-url", "recipients.txt", "no-recipients.txt", "credentials"] {
        let text = fs::read_to_string(Path::new(FIXTURES).join(name)).unwrap();
        place.write(name, &text, 0o600);
    }
    place.write("opsctl.toml", &fs::read_to_string(path).unwrap(), 0o600);
    let environment = Environment::from([("HOME", "/nowhere")]);
    let loaded = resolve::load(&Overrides::default(), &environment, place.path(), &place.host);
    (place, loaded)
}

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(FIXTURES).join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    assert!(!paths.is_empty());
    paths
}

#[test]
fn loads_every_valid_file() {
    for path in fixtures("valid") {
        let (_place, loaded) = load_fixture(&path);
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(!loaded.config.databases.is_empty() && !loaded.config.repositories.is_empty());
        let shown = show(&loaded);
        assert!(shown.iter().all(|shown| !shown.value.contains("geheim")), "{shown:?}");
    }
}

#[test]
fn refuses_every_invalid_file_with_its_message() {
    let mut wrong = String::new();
    for path in fixtures("invalid") {
        let (place, loaded) = load_fixture(&path);
        let mut actual = String::new();
        match loaded {
            Ok(_) => actual.push_str("no problem\n"),
            Err(error) => error.problems().iter().for_each(|p| writeln!(actual, "{p}").unwrap()),
        }
        let actual = place.without_path(&actual);
        assert!(!actual.contains("geheim"), "{actual}");
        let golden = fs::read_to_string(path.with_extension("txt")).unwrap_or_default();
        if actual != golden {
            let name = path.file_stem().unwrap().display();
            writeln!(wrong, "--- {name}.txt should be\n{golden}+++ {name}.txt is\n{actual}")
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_example_is_valid_and_explains_every_key() {
    let place = Place::with_file(EXAMPLE);
    let loaded = place.load(&Overrides::default(), [("HOME", "/nowhere")]).unwrap();
    assert_eq!(loaded.config.repositories[0].retention.keep_days, 30);
    let lines: Vec<&str> = EXAMPLE.lines().map(|line| line.trim_start_matches('#')).collect();
    for (section, keys) in file::KEYS.iter().filter(|(section, _)| !section.is_empty()) {
        let is_section = |key: &str| {
            let sections = [
                "retention",
                "s3",
                "query",
                "commands",
                "severity",
                "channels",
                "rule",
                "unlock",
                "revoke",
                "audit",
                "children",
                "from",
            ];
            sections.contains(&key)
                || *section == "health" && crate::health::kind::find(key).is_some()
        };
        for key in keys.iter().filter(|key| !is_section(key)) {
            let stated = format!("{key} = ");
            assert!(lines.iter().any(|line| line.starts_with(&stated)), "{section}: {key}");
        }
    }
}

#[test]
fn the_example_is_valid_with_every_line_in_use() {
    let is_setting = |line: &str| {
        line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '))
    };
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        let bare = line.strip_prefix('#').filter(|bare| is_setting(bare));
        writeln!(text, "{}", bare.unwrap_or(line)).unwrap();
    }
    // What the example offers instead of each other.
    let text = text
        .replace("[database]", "[databases.ip2a]")
        .replace("[repository", "[repositories.local");
    let text = text.replace("name = \"ip2a\"\n", "");
    let text = text.replace("url_file = \"/run/secrets/database-url\"\n", "");
    let text =
        text.replace("url_file = \"/run/secrets/members-url\"\n", "url_file = \"database-url\"\n");
    let text = text.replace("url_file = \"/run/secrets/history-url\"\n", "");
    let text = text.replace("webhook = \"", "# webhook = \"").replace("slack = \"", "# slack = \"");
    let text = text.replace("/etc/opsctl/aws-", "");
    let text = text.replace("url_file = \"/run/secrets/ping-url\"\n", "");
    let text = text.replace("pushgateway_file = \"/run/secrets/pushgateway-url\"\n", "");
    let text = text.replace("headers_file = \"/run/secrets/api-headers\"\n", "");
    let place = Place::with_file(&text);
    place.write("database-url", "postgresql://u@h/members", 0o600);
    place.write("recipients.txt", RECIPIENT, 0o600);
    place.write("credentials", "[backups]", 0o600);
    let loaded = place.load(&Overrides::default(), []).unwrap();
    assert_eq!((loaded.config.databases.len(), loaded.config.repositories.len()), (2, 2));
    assert_eq!(loaded.config.notify.channels.len(), 3);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let keys = ["backup.jobs"];
    let place = Place::with_file("[backup]\n\njobs = 2\n");
    let flag = Overrides { jobs: Some(4), ..Overrides::default() };
    let none = Overrides::default();
    let home = ("HOME", "/nowhere");
    let check = |actual: String, expected: &str| assert_eq!(actual, expected);
    let jobs = ("OPSCTL_JOBS", "3");
    check(place.shown(&flag, [jobs, home], &keys), "backup.jobs = 4 (flag --jobs)\n");
    check(place.shown(&none, [jobs, home], &keys), "backup.jobs = 3 (environment OPSCTL_JOBS)\n");
    check(place.shown(&none, [home], &keys), "backup.jobs = 2 (opsctl.toml:3)\n");
    check(Place::new().shown(&none, [home], &keys), "backup.jobs =  (default)\n");
}

#[test]
fn every_plain_setting_has_a_variable() {
    let place = Place::new();
    let variables = [
        ("OPSCTL_STATE_DIR", "state"),
        ("OPSCTL_BIN_DIR", "/bin"),
        ("OPSCTL_REPOSITORY", "b"),
        ("OPSCTL_COMPRESSION", "gzip"),
        ("OPSCTL_JOBS", "3"),
        ("OPSCTL_SCHEMA_ONLY", "no"),
        ("OPSCTL_ROLE_PASSWORDS", "true"),
        ("OPSCTL_FAIL_ON_SHRINK", "1"),
        ("OPSCTL_SHRINK_PERCENT", "20"),
        ("OPSCTL_TIMEOUT", "90s"),
        ("OPSCTL_HISTORY_URL", "postgresql://h/d"),
    ];
    let loaded = place.load(&Overrides::default(), variables).unwrap();
    let shown = show(&loaded);
    for (variable, _) in variables {
        let source = format!("environment {variable}");
        assert!(shown.iter().any(|shown| shown.source == source), "{variable}: {shown:?}");
    }
    let bad = place.load(&Overrides::default(), variables.map(|(name, _)| (name, "~/s3://=")));
    let bad = bad.unwrap_err();
    for (variable, _) in variables {
        assert!(bad.contains(&format!("environment {variable}: ")), "{variable}: {bad}");
    }
}

#[test]
fn a_variable_names_the_check_before_all_that_the_file_says() {
    let keys = ["ping.url", "ping.commands.backup", "metrics.pushgateway"];
    let text = "[ping]\nurl_file = \"url\"\n[ping.commands]\nbackup = \"https://b/geheim\"\n";
    let place = Place::with_file(text);
    place.write("url", "https://user:geheim@h:81/geheim\n", 0o600);
    let (none, home) = (Overrides::default(), ("HOME", "/h"));
    assert_eq!(
        place.shown(&none, [home], &keys),
        "ping.url = https://h:81/*** (opsctl.toml:2)\n\
         ping.commands.backup = https://b/*** (opsctl.toml:4)\n\
         metrics.pushgateway =  (default)\n"
    );
    let variables =
        [home, (ping::VARIABLE, "https://v/geheim"), ("OPSCTL_PUSHGATEWAY", "http://p")];
    assert_eq!(
        place.shown(&none, variables, &keys),
        "ping.url = https://v/*** (environment OPSCTL_PING_URL)\n\
         metrics.pushgateway = http://p/*** (environment OPSCTL_PUSHGATEWAY)\n"
    );
    place.write("opsctl.toml", text, 0o640);
    let message = place.load(&none, [home]).unwrap_err();
    let expected = "opsctl.toml:4: `backup` in [ping.commands] is a secret that others can read: ";
    assert!(message.starts_with(expected) && !message.contains("geheim"), "{message}");
}

#[test]
fn works_without_any_file() {
    let keys = ["database.url", "database.dbname", "repository.location", "state_dir"];
    let place = Place::new();
    let none = Overrides::default();
    let (home, user) = (("HOME", "/h"), Host { uid: 1000, ..place.host.clone() });
    assert_eq!(
        place.shown(&none, [home, ("OPSCTL_STATE_DIR", "/s")], &keys),
        "state_dir = /s (environment OPSCTL_STATE_DIR)\n\
         database.url =  (default)\n\
         repository.location = backups (default)\n"
    );
    let place = Place { host: user, ..place };
    assert_eq!(
        place.shown(&none, [home, ("DATABASE_URL", "postgresql://u:geheim@h/d")], &keys),
        "state_dir = /h/.local/state/opsctl (default)\n\
         database.url = postgresql://u:***@h/d (environment DATABASE_URL)\n\
         repository.location = backups (default)\n"
    );
    assert_eq!(
        place.shown(&none, [], &keys),
        "without HOME there is no place for the state: set `state_dir` or OPSCTL_STATE_DIR"
    );
    let host = Host { uid: 0, ..place.host.clone() };
    let place = Place { host, ..place };
    let root = place.load(&none, []).unwrap();
    assert_eq!(root.config.state_dir, Path::new("/var/lib/opsctl"));
}

#[test]
fn chooses_among_configured_databases() {
    let place = Place::with_file(
        "[databases.b]\nurl = \"postgresql:///b\"\n[databases.a]\nurl_file = \"absent\"\n",
    );
    let only = |names: &[&str]| Overrides {
        databases: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Overrides::default()
    };
    let environment = [("HOME", "/h"), ("DATABASE_URL", "postgresql:///unused")];
    let loaded = place.load(&only(&["b"]), environment).unwrap();
    assert_eq!(loaded.config.databases.len(), 1);
    assert_eq!(loaded.config.databases[0].label(), Some("b"));
    assert_eq!(
        place.load(&only(&["b", "c"]), environment).unwrap_err(),
        "flag --database: no database `c` is configured, only b, a"
    );
    assert_eq!(
        place.load(&Overrides::default(), environment).unwrap_err(),
        "opsctl.toml:4: failed to read `absent`: No such file or directory (os error 2)"
    );
}

#[test]
fn a_database_that_is_not_configured_is_one_to_connect_to() {
    let only = |names: &[&str]| Overrides {
        databases: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Overrides::default()
    };
    let environment = [("HOME", "/h"), ("DATABASE_URL", "postgresql:///x")];
    for place in [Place::new(), Place::with_file("[database]\nurl = \"postgresql:///x\"\n")] {
        let loaded = place.load(&only(&["a", "b", "a"]), environment).unwrap();
        let databases = loaded.config.databases;
        let seen: Vec<_> =
            databases.iter().map(|d| (d.name.is_none(), d.dbname.as_deref())).collect();
        assert_eq!(seen, [(true, Some("a")), (true, Some("b"))]);
        assert!(databases.iter().all(|database| database.url.is_some()));
        let message = place.load(&only(&["host=evil"]), environment).unwrap_err();
        assert!(message.starts_with("flag --database: is not the name of a database"), "{message}");
    }
    let named = Place::with_file("[database]\nname = \"a\"\nurl = \"postgresql:///x\"\n");
    assert_eq!(named.load(&only(&["a"]), environment).unwrap().config.databases[0].dbname, None);
    named.load(&only(&["b"]), environment).unwrap_err();
}

#[test]
fn a_url_flag_replaces_the_configured_databases() {
    let place = Place::with_file("[database]\nname = \"prod\"\nurl = \"postgresql:///prod\"\n");
    let flag = |url: &str| Overrides { url: Some(Secret::new(url)), ..Overrides::default() };
    let environment = [("HOME", "/h")];
    let loaded = place.load(&flag("postgresql:///other"), environment).unwrap();
    assert_eq!(loaded.config.databases[0].name, None);
    let message = place.load(&flag("u:geheim@h"), environment).unwrap_err();
    assert!(message.starts_with("flag --url: ") && !message.contains("geheim"), "{message}");
}

#[test]
fn chooses_a_repository_by_name_or_location() {
    let text = format!(
        "[repositories.local]\nlocation = \"/b\"\nrecipients = [\"{RECIPIENT}\"]\nretention.keep_last = 3\n\
         [repositories.offsite]\nlocation = \"s3://bucket/x\"\nrecipients = [\"{OTHER_RECIPIENT}\"]\n\
         s3.endpoint = \"http://h:1\"\n"
    );
    let place = Place::with_file(&text);
    let load = |where_to: &str| {
        let overrides = Overrides { repository: Some(where_to.to_owned()), ..Overrides::default() };
        place.load(&overrides, [("HOME", "/h")]).map(|loaded| loaded.config.repositories)
    };
    let name = |where_to: &str| load(where_to).map(|found| found[0].name.clone());
    assert_eq!(name("offsite"), Ok("offsite".to_owned()));
    assert_eq!(name("/b/"), Ok("local".to_owned()));
    assert_eq!(
        name("ofsite").unwrap_err(),
        "flag --repository: no repository `ofsite` is configured, only local, offsite: \
         write `./ofsite` for a directory"
    );
    let new = &load("./ofsite").unwrap()[0];
    assert_eq!(new.location, Location::Directory(place.path().join("ofsite")));
    assert_eq!((&new.name[..], new.retention), ("default", Retention::default()));
    assert_eq!(new.recipients, [RECIPIENT, OTHER_RECIPIENT]);
    let same_bucket = &load("s3://bucket/y").unwrap()[0];
    let Location::S3(s3) = &same_bucket.location else { panic!("not S3") };
    assert_eq!(s3.endpoint.as_deref(), Some("http://h:1"));
    assert!(s3.path_style);
}

#[test]
fn the_only_repository_keeps_its_rules_at_another_location() {
    let text = format!(
        "[repository]\nlocation = \"s3://bucket\"\nrecipients = [\"{RECIPIENT}\"]\nretention.keep_last = 3\n"
    );
    let place = Place::with_file(&text);
    let environment = [("HOME", "/h"), ("OPSCTL_REPOSITORY", "elsewhere")];
    let loaded = place.load(&Overrides::default(), environment).unwrap();
    let repository = &loaded.config.repositories[0];
    assert_eq!(repository.location, Location::Directory(place.path().join("elsewhere")));
    assert_eq!((repository.retention.keep_last, repository.recipients.len()), (3, 1));
}

#[test]
fn finds_the_file_in_order() {
    let place = Place::new();
    place.write("etc/opsctl.toml", "backup.jobs = 1\n", 0o644);
    let jobs = |place: &Place, flag: Option<&str>, variable: &str| {
        let overrides = Overrides { config: flag.map(PathBuf::from), ..Overrides::default() };
        place
            .load(&overrides, [("HOME", "/h"), ("OPSCTL_CONFIG", variable)])
            .map(|loaded| loaded.config.backup.jobs)
    };
    assert_eq!(jobs(&place, None, ""), Ok(Some(1)));
    place.write("opsctl.toml", "backup.jobs = 2\n", 0o644);
    assert_eq!(jobs(&place, None, ""), Ok(Some(2)));
    place.write("variable.toml", "backup.jobs = 3\n", 0o644);
    assert_eq!(jobs(&place, None, "variable.toml"), Ok(Some(3)));
    place.write("flag.toml", "backup.jobs = 4\n", 0o644);
    assert_eq!(jobs(&place, Some("flag.toml"), "variable.toml"), Ok(Some(4)));
    let missing = "failed to read `absent`: No such file or directory (os error 2)";
    assert_eq!(jobs(&place, Some("absent"), ""), Err(format!("flag --config: {missing}")));
    assert_eq!(jobs(&place, None, "absent"), Err(format!("environment OPSCTL_CONFIG: {missing}")));
    let message = jobs(&place, Some("."), "").unwrap_err();
    assert!(message.contains("Is a directory"), "{message}");
}

#[test]
fn refuses_a_password_that_others_can_read() {
    let text = "[database]\nurl = \"postgresql://u:geheim@h/d\"\n";
    let place = Place::new();
    place.write("opsctl.toml", text, 0o640);
    assert_eq!(
        place.load(&Overrides::default(), [("HOME", "/h")]).unwrap_err(),
        "opsctl.toml:2: `url` in [database] holds a password that others can read: \
         its mode is 0640: run `chmod 600` on it, or use `url_file`"
    );
    place.write("opsctl.toml", &text.replace(":geheim", ""), 0o640);
    place.load(&Overrides::default(), [("HOME", "/h")]).unwrap();
    let text = "[[health.redis]]\nname = \"a\"\nurl = \"redis://:geheim@h\"\n[[health.http]]\nname = \"a\"\n\
                url = \"https://h/?token=geheim\"\nheaders = \"X-Token: geheim\"\n[[health.http]]\nname = \"b\"\n\
                url = \"https://h/\"\n";
    place.write("opsctl.toml", text, 0o640);
    let message = place.load(&Overrides::default(), [("HOME", "/h")]).unwrap_err();
    for what in [
        "opsctl.toml:3: `url` in [health.redis.a] is",
        "opsctl.toml:6: `url` in [health.http.a] is",
        "opsctl.toml:7: `headers` in [health.http.a] is",
    ] {
        assert!(message.contains(what), "{message}");
    }
    assert_eq!(message.matches("is a secret").count(), 3, "{message}");
}

#[test]
fn refuses_a_file_of_a_stranger_that_nobody_named() {
    let mut place = Place::with_file("backup.jobs = 2\n");
    let overrides =
        Overrides { config: Some(PathBuf::from("opsctl.toml")), ..Overrides::default() };
    let environment = [("HOME", "/h")];
    place.write("opsctl.toml", "backup.jobs = 2\n", 0o666);
    let message = place.load(&Overrides::default(), environment).unwrap_err();
    assert!(message.contains("everybody may write to it"), "{message}");
    place.load(&overrides, environment).unwrap();
    // Only where the tests do not run as root, whose files everybody trusts.
    if place.host.uid != 0 {
        place.host.uid += 1;
        let message = place.load(&Overrides::default(), environment).unwrap_err();
        assert!(message.contains("it belongs to user"), "{message}");
    }
}

#[test]
fn finds_credentials_in_order() {
    let place = Place::new();
    place.write("home/.aws/credentials", "[default]\n[ backups ]\n", 0o600);
    let home = home(&place);
    let overrides =
        Overrides { repository: Some("s3://bucket".to_owned()), ..Overrides::default() };
    let load = |extra: [(&str, &str); 3]| {
        let [a, b, c] = extra;
        let loaded = place.load(&overrides, [("OPSCTL_STATE_DIR", "/s"), a, b, c])?;
        match &loaded.config.repositories[0].location {
            Location::S3(s3) => Ok(s3.credentials.clone()),
            Location::Directory(_) => Err("not S3".to_owned()),
        }
    };
    let (none, home) = (("X", ""), ("HOME", home.as_str()));
    let (id, key) = (("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "geheim"));
    assert!(matches!(load([home, id, key]), Ok(Credentials::Keys { .. })));
    let missing = "environment AWS_SECRET_ACCESS_KEY: is missing, while AWS_ACCESS_KEY_ID is set";
    assert_eq!(load([home, id, none]), Err(missing.to_owned()));
    let missing = "environment AWS_ACCESS_KEY_ID: is missing, while AWS_SECRET_ACCESS_KEY is set";
    assert_eq!(load([home, none, key]), Err(missing.to_owned()));
    let profile = |name: &str| {
        let (file, profile) = (place.path().join("home/.aws/credentials"), name.to_owned());
        Ok(Credentials::Profile { file, profile })
    };
    assert_eq!(load([home, none, none]), profile("default"));
    assert_eq!(load([home, ("AWS_PROFILE", "backups"), none]), profile("backups"));
    assert_eq!(load([none, none, none]), Ok(Credentials::Ambient));
    assert_eq!(load([("HOME", "/nowhere"), none, none]), Ok(Credentials::Ambient));
    assert_eq!(
        load([home, ("AWS_PROFILE", "absent"), none]).unwrap_err(),
        "environment AWS_PROFILE: there is no profile `absent` in `home/.aws/credentials`"
    );
}

#[test]
fn the_stronger_word_settles_schema_only() {
    let environment = [("HOME", "/h")];
    let place = Place::with_file("[backup]\nexclude_table_data = [\"a\"]\n");
    let flag = Overrides { schema_only: Some(true), ..Overrides::default() };
    let backup = place.load(&flag, environment).unwrap().config.backup;
    assert!(backup.schema_only && backup.exclude_table_data.is_empty());
    let place = Place::with_file("[backup]\nschema_only = true\n");
    let flag = Overrides { exclude_table_data: vec!["a".to_owned()], ..Overrides::default() };
    assert_eq!(
        place.load(&flag, environment).unwrap_err(),
        "flag --exclude-table-data: leaves out what `schema_only` (opsctl.toml:2) leaves out already"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_the_loader_panic(text in any::<String>(), lines in prop::collection::vec(
        "(\\[{1,2}(database|databases\\.[a-z.\"]{1,3}|repository|repository\\.s3|repositories\\.a|backup)\\]{0,2}\
         |(url|name|location|jobs|timeout|recipients|s3|retention|schema_only|object_lock_days)\
         (\\.[a-z]{1,3})? = ([0-9]{1,12}|\"[a-z0-9:/@=.~]{0,12}\"|\\[.{0,4}\\]|\\{.{0,4}\\}|.{0,6}))",
        0..8,
    )) {
        for text in [text, lines.join("\n")] {
            let found = find::Found { path: PathBuf::from("/x/opsctl.toml"), text, exposed: Some(String::new()) };
            if let Err(error) = file::parse(&found) {
                let message = error.to_string();
                prop_assert!(!message.is_empty() && !message.contains('\n'), "{}", message);
            }
        }
    }
}
