//! Real frameworks make the tables and are the judges: after opsctl their own cleaning finds nothing, and who is logged in stays so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::support::sessions::Site;
use crate::support::stock;

/// Returns the directory of the frameworks, installing them first if need be.
fn frameworks() -> &'static Path {
    static FRAMEWORKS: OnceLock<PathBuf> = OnceLock::new();
    FRAMEWORKS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/install-frameworks.sh");
        let output = stock(Command::new("bash").arg(script).stdin(Stdio::null()));
        PathBuf::from(output.lines().last().expect("install-frameworks.sh says where"))
    })
}

/// Runs a site of `tests/fixtures/frameworks` on a database and returns what it prints.
#[track_caller]
fn visit(site: &Site, name: &str, args: &[&str]) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/frameworks").join(name);
    let mut command = match file.extension().unwrap().to_str().unwrap() {
        "py" => Command::new("python3"),
        "php" => Command::new("php"),
        "rb" => Command::new("ruby"),
        _ => Command::new("node"),
    };
    if name.ends_with(".mjs") {
        command.args(["--input-type=module", "-"]).stdin(std::fs::File::open(&file).unwrap());
    } else {
        command.arg(&file).stdin(Stdio::null());
    }
    command.args(args).current_dir(frameworks());
    command.env("PYTHONPATH", frameworks().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PGHOST", &site.cluster.dir).env("PGPORT", &site.cluster.port);
    command.env("PGUSER", "postgres").env("PGDATABASE", &site.database);
    stock(&mut command).trim().to_owned()
}

#[track_caller]
fn answer(site: &Site, name: &str, args: &[&str]) -> Value {
    let text = visit(site, name, args);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn django_and_its_packages_find_nothing_left() {
    let site = Site::new("", "");
    let django = |args: &[&str]| visit(&site, "django_site.py", args);
    django(&["migrate"]);
    let held = django(&["live"]);
    django(&["expired", "7"]);
    // `detect` proposes it; what only the application knows is filled in.
    let proposed = site.sandbox.run(&["cleanup-sessions", "detect"]).expect(0).stdout;
    for preset in ["django", "django-axes", "django-axes-logs", "django-oauth-toolkit", "simplejwt"]
    {
        assert!(proposed.contains(&format!("preset = \"{preset}\"")), "{proposed}");
    }
    let without = "[[sessions.rule]]\npreset = \"django-axes-expiration\"\n";
    site.configure(&proposed.replace(without, "").replace("#grace", "grace"));
    let part = site.clean(0, &["--first-run"]);
    let deleted = |rule: &str| {
        let rules = part["rules"].as_array().unwrap();
        rules.iter().find(|r| r["rule"] == rule).unwrap_or_else(|| panic!("{rule}: {part:#}"))["deleted"].as_u64().unwrap()
    };
    assert_eq!((deleted("django"), deleted("simplejwt"), deleted("django-axes")), (7, 7, 1));
    assert_eq!(
        (deleted("django-oauth-toolkit.revoked"), deleted("django-oauth-toolkit.refresh")),
        (3, 4)
    );
    let left = answer(&site, "django_site.py", &["left"]);
    assert_eq!(left["found"], json!({}), "{left:#}");
    // Revoked tokens that may still be used a second time are there, so that it is noticed.
    assert_eq!(left["kept"]["oauth2_provider_refreshtoken"], 8, "{left:#}");
    assert_eq!(left["kept"]["token_blacklist_blacklistedtoken"], 1, "{left:#}");
    django(&["check", &held]);
}

#[test]
fn attempts_that_axes_itself_dates_go_by_that_date() {
    let site = Site::new(
        "",
        "[[sessions.rule]]\npreset = \"django-axes-expiration\"\nmax_percent = 100\n",
    );
    visit(&site, "django_site.py", &["migrate"]);
    site.sql(
        "INSERT INTO axes_accessattempt (id, user_agent, username, http_accept, path_info, attempt_time, get_data, post_data, \
             failures_since_start) OVERRIDING SYSTEM VALUE SELECT n, '', n::text, '', '', now() - interval '1 day', '', '', 3 \
             FROM generate_series(1, 3) n; \
         INSERT INTO axes_accessattemptexpiration SELECT n, now() + (n - 1.5) * interval '1 h' FROM generate_series(1, 2) n",
    );
    let part = site.clean(0, &[]);
    assert_eq!((&part["deleted"], &part["children"]), (&1.into(), &1.into()), "{part:#}");
    assert_eq!(
        site.sql("SELECT string_agg(username, ' ' ORDER BY id) FROM axes_accessattempt"),
        "2 3"
    );
}

#[test]
fn the_session_store_of_express_finds_nothing_to_prune() {
    let site = Site::new("", "");
    let express = |args: &[&str]| visit(&site, "express_site.mjs", args);
    express(&["tables"]);
    let cookie = express(&["live"]);
    express(&["expired", "3"]);
    site.configure("[[sessions.rule]]\npreset = \"connect-pg-simple\"\n");
    assert!(site.refusal(10, &["--first-run"]).contains("needs `zone`"));
    site.configure(
        "[[sessions.rule]]\npreset = \"connect-pg-simple\"\nzone = \"America/New_York\"\n",
    );
    assert_eq!(site.clean(0, &["--first-run"])["deleted"], 3);
    let left = answer(&site, "express_site.mjs", &["left"]);
    assert_eq!(left, json!({ "found": 0, "kept": 1 }));
    express(&["check", &cookie]);
}

#[test]
fn auth_js_keeps_its_links_to_providers() {
    let site = Site::new("", "[[sessions.rule]]\npreset = \"authjs\"\n");
    let authjs = |args: &[&str]| visit(&site, "auth_site.mjs", &[&["authjs"], args].concat());
    authjs(&["tables"]);
    let held = authjs(&["fill"]);
    let accounts = site.sql("SELECT * FROM accounts");
    assert_eq!(site.clean(0, &["--first-run"])["deleted"], 6);
    assert_eq!(site.sql("SELECT * FROM accounts"), accounts);
    authjs(&["check", &held]);
}

#[test]
fn better_auth_keeps_who_is_logged_in() {
    let site = Site::new("", "");
    let better = |args: &[&str]| visit(&site, "auth_site.mjs", &[&["better-auth"], args].concat());
    better(&["tables"]);
    let cookie = better(&["fill"]);
    let proposed = site.sandbox.run(&["cleanup-sessions", "detect"]).expect(0).stdout;
    assert!(proposed.contains("public.account is left alone"), "{proposed}");
    site.configure(&proposed);
    let part = site.clean(0, &["--first-run"]);
    assert_eq!(part["rules"][1]["deleted"], 1, "{part:#}");
    assert_eq!(
        site.sql("SELECT count(*), count(*) FILTER (WHERE \"expiresAt\" < now()) FROM session"),
        "1|0"
    );
    better(&["check", &cookie]);
}

#[test]
fn laravel_finds_no_garbage() {
    let site = Site::new("", "[[sessions.rule]]\npreset = \"laravel\"\ngrace = \"2h\"\n");
    let laravel = |args: &[&str]| visit(&site, "laravel_site.php", args);
    laravel(&["tables"]);
    let id = laravel(&["live"]);
    laravel(&["expired", "3"]);
    assert_eq!(site.clean(0, &["--first-run"])["deleted"], 3);
    assert_eq!(answer(&site, "laravel_site.php", &["left"]), json!({ "found": 0, "kept": 1 }));
    laravel(&["check", &id]);
}

#[test]
fn laravel_finds_no_token_for_a_new_password_that_is_expired() {
    let rule = "[[sessions.rule]]\npreset = \"laravel-password-resets\"\ngrace = \"1h\"\n";
    let site = Site::new("", rule);
    let token = visit(&site, "laravel_site.php", &["resets"]);
    assert_eq!(site.clean(0, &["--first-run"])["deleted"], 3);
    let left = answer(&site, "laravel_site.php", &["unused", &token]);
    assert_eq!(left, json!({ "found": 0, "kept": 1 }));
}

#[test]
fn devise_lets_in_whose_lock_has_lapsed_and_nobody_else() {
    let site = Site::new("", "[[sessions.unlock]]\npreset = \"devise\"\ngrace = \"1h\"\n");
    let devise = |args: &[&str]| visit(&site, "devise_site.rb", args);
    devise(&["tables"]);
    devise(&["lock"]);
    assert_eq!(site.clean(0, &[])["unlocks"][0]["ids"], json!(["1"]));
    let found = answer(&site, "devise_site.rb", &["check"]);
    let (lapsed, locked) =
        (json!({ "reset": true, "enters": true }), json!({ "reset": false, "enters": false }));
    assert_eq!(found, json!({ "lapsed": lapsed, "locked": locked }));
}
