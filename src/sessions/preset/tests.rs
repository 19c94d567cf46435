//! Presets against the shapes of tables: those of frameworks are recognised, and nothing else.

use proptest::prelude::*;

use super::*;

/// Makes a layout of `table: column type, …`.
fn layout(tables: &[(&str, &str)]) -> Layout {
    let columns = |text: &str| {
        let column = |text: &str| text.trim().split_once(' ').map(|(n, t)| (n.into(), long(t)));
        text.split(',').filter_map(column).collect()
    };
    let key = |name: &str| ("public".to_owned(), name.to_owned());
    tables.iter().map(|(name, text)| (key(name), columns(text))).collect()
}

fn long(name: &str) -> String {
    match name {
        "timestamptz" => "timestamp with time zone",
        "timestamp" => "timestamp without time zone",
        "varchar" => "character varying",
        other => other,
    }
    .to_owned()
}

fn recognised(layout: &Layout) -> Vec<&'static str> {
    let is = |preset: &&Preset| !schemas(preset, layout).is_empty();
    PRESETS.iter().filter(is).map(|preset| preset.name).collect()
}

fn wishes(name: &str) -> Wishes<'_> {
    Wishes { name, grace: None, zone: None, condition: None, max_percent: 50 }
}

const RAILS_STORE: &str =
    "id bigint, session_id varchar, data text, created_at timestamp, updated_at timestamp";
const RAILS: &str = "id bigint, user_id bigint, ip_address varchar, user_agent varchar, created_at timestamp, updated_at timestamp";
const LARAVEL: &str = "id varchar, user_id bigint, ip_address varchar, user_agent text, payload text, last_activity integer";
const AUTHJS: &str = "id integer, userId integer, expires timestamptz, sessionToken varchar";
const AUTHJS_TOKEN: &str = "identifier text, expires timestamptz, token text";

#[test]
fn the_configuration_knows_the_same_presets() {
    let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!(names, crate::config::PRESETS);
}

#[test]
fn four_tables_named_sessions_are_told_apart() {
    assert_eq!(recognised(&layout(&[("sessions", RAILS_STORE)])), ["rails-session-store"]);
    assert_eq!(recognised(&layout(&[("sessions", RAILS)])), ["rails-authentication"]);
    assert_eq!(recognised(&layout(&[("sessions", LARAVEL)])), ["laravel"]);
    let authjs = [("sessions", AUTHJS), ("verification_token", AUTHJS_TOKEN)];
    assert_eq!(recognised(&layout(&authjs)), ["authjs"]);
    // One of nobody's.
    let own = "id bigint, user_id bigint, expires_at timestamptz";
    assert_eq!(recognised(&layout(&[("sessions", own)])), [] as [&str; 0]);
}

#[test]
fn a_table_with_another_type_is_refused_and_it_is_said_why() {
    let preset = find("laravel").unwrap();
    let other = LARAVEL.replace("last_activity integer", "last_activity bigint");
    let said = matches(preset, &layout(&[("sessions", &other)]), "public").unwrap_err();
    assert_eq!(said, "public.sessions: `last_activity` is bigint, not integer");
    let said = matches(preset, &layout(&[]), "public").unwrap_err();
    assert_eq!(said, "there is no table public.sessions");
    let said =
        matches(find("rails-authentication").unwrap(), &layout(&[("sessions", LARAVEL)]), "public");
    assert!(said.unwrap_err().contains("there is `payload`, which is another's"));
}

#[test]
fn what_only_the_application_knows_must_be_stated() {
    let laravel = find("laravel").unwrap();
    let tables = layout(&[("sessions", LARAVEL)]);
    let said = rules(laravel, &tables, "public", wishes("laravel")).unwrap_err();
    assert!(said.contains("needs `grace`: `lifetime` of config/session.php"), "{said}");
    let grace = Some(Duration::from_secs(7200));
    let rules_ = rules(laravel, &tables, "public", Wishes { grace, ..wishes("l") }).unwrap();
    assert_eq!((rules_[0].grace.as_secs(), &rules_[0].time), (7200, &Time::EpochSeconds));
    let simple = find("connect-pg-simple").unwrap();
    let tables = layout(&[("session", "sid varchar, sess json, expire timestamp")]);
    let said = rules(simple, &tables, "public", wishes("s")).unwrap_err();
    assert!(said.contains("needs `zone`"), "{said}");
    let zone = Some("Europe/Berlin");
    let stated = rules(simple, &tables, "public", Wishes { zone, ..wishes("s") }).unwrap();
    assert_eq!(stated[0].time, Time::Timestamp { zone: "Europe/Berlin".to_owned() });
    let said =
        rules(find("django").unwrap(), &layout(&[]), "public", Wishes { zone, ..wishes("d") });
    assert!(said.unwrap_err().contains("has no `zone`"));
}

#[test]
fn links_to_oauth_providers_are_left_alone() {
    let tables = layout(&[(
        "accounts",
        "id integer, userId integer, provider varchar, providerAccountId varchar, expires_at bigint",
    )]);
    let columns = tables.values().next().unwrap();
    assert!(left_alone(&"public.accounts".parse().unwrap(), columns).is_some());
    // A table of the same name that is somebody's own is not meant.
    assert!(left_alone(&"public.accounts".parse().unwrap(), &BTreeMap::new()).is_none());
    // Whatever the adapter calls the columns, and the application the table.
    for columns in [
        "userId uuid, provider text, providerAccountId text",
        "user_id uuid, provider varchar, provider_account_id varchar",
        "userId text, providerId text, accountId text, accessTokenExpiresAt timestamptz",
        "user_id text, provider_id text, account_id text, access_token_expires_at timestamp",
    ] {
        let tables = layout(&[("t3_account", columns)]);
        let columns = tables.values().next().unwrap();
        assert!(left_alone(&"public.t3_account".parse().unwrap(), columns).is_some());
    }
    let tables =
        layout(&[("claims", "provider_id bigint, account_id bigint, expires_at timestamptz")]);
    let columns = tables.values().next().unwrap();
    assert!(left_alone(&"public.claims".parse().unwrap(), columns).is_none());
}

#[test]
fn an_unlock_resets_only_what_is_there() {
    let devise = find("devise").unwrap();
    let users =
        "id bigint, encrypted_password varchar, failed_attempts integer, locked_at timestamp";
    let grace = Some(Duration::from_secs(3600));
    let of = |users: &str| {
        lock(devise, &layout(&[("users", users)]), "public", Wishes { grace, ..wishes("d") })
    };
    assert_eq!(of(users).unwrap().0.set_null, [] as [String; 0]);
    assert_eq!(of(&format!("{users}, unlock_token varchar")).unwrap().0.set_null, ["unlock_token"]);
    assert!(lock(devise, &layout(&[("users", users)]), "public", wishes("d")).is_err());
}

proptest! {
    /// Every column that a preset names counts: without it, or with another type, the table is somebody else's.
    #[test]
    fn a_fingerprint_counts_every_column(at in 0..PRESETS.len(), table in 0usize..4, column in 0usize..8, gone: bool) {
        let preset = &PRESETS[at];
        let mut tables = Layout::new();
        for print in preset.tables {
            let columns = print.columns.iter().map(|(name, kind)| {
                let kind = match kind {
                    Type::Id => "bigint",
                    Type::Text => "text",
                    Type::Json => "jsonb",
                    other => other.word(),
                };
                ((*name).to_owned(), kind.to_owned())
            });
            tables.insert(("s".to_owned(), print.table.to_owned()), columns.collect());
        }
        prop_assert_eq!(schemas(preset, &tables), ["s"]);
        let print = &preset.tables[table % preset.tables.len()];
        let (name, _) = print.columns[column % print.columns.len()];
        let columns = tables.get_mut(&("s".to_owned(), print.table.to_owned())).unwrap();
        if gone { columns.remove(name); } else { columns.insert(name.to_owned(), "point".to_owned()); }
        prop_assert_eq!(schemas(preset, &tables), [] as [String; 0]);
    }
}
