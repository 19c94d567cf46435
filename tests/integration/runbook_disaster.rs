//! The disaster drill: machine, data, configuration and state are lost. From the bucket, the age identity and the program alone
//! somebody restores, by the lines of the page and nothing else, and what comes out serves.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::reader::{But, Reader};
use crate::support::s3::S3;
use crate::support::{Cluster, Run, Sandbox, installed, stock};

#[test]
fn from_the_bucket_and_the_identity_alone_everything_is_back_by_the_page() {
    let s3 = S3::shared();
    let bucket = s3.bucket();
    let safe = tempfile::Builder::new().prefix("opsctl-test-").tempdir().unwrap();
    let identity = safe.path().join("identity.txt");
    stock(Command::new("age-keygen").arg("-o").arg(&identity));
    let recipient = stock(Command::new("age-keygen").arg("-y").arg(&identity)).trim().to_owned();
    let known = {
        let cluster = Cluster::start(&installed(), &[], &[]);
        let sql = |sql: &str| cluster.sql("members", sql);
        cluster.sql("postgres", "CREATE ROLE app LOGIN; CREATE ROLE reports; GRANT reports TO app");
        cluster.sql("postgres", "CREATE DATABASE members TEMPLATE template0 OWNER app");
        sql("CREATE TABLE members (id bigserial PRIMARY KEY, name text NOT NULL, since timestamptz DEFAULT now());
            ALTER TABLE members OWNER TO app; GRANT SELECT ON members TO reports;
            INSERT INTO members (name) SELECT md5(n::text) FROM generate_series(1, 20000) n;
            CREATE TABLE dues (member bigint REFERENCES members, amount numeric); ALTER TABLE dues OWNER TO app;
            INSERT INTO dues SELECT n, n / 100.0 FROM generate_series(1, 5000) n");
        let mut old = Sandbox::new(&cluster.url("members"));
        s3.set_up(&mut old);
        old.unset("OPSCTL_REPOSITORY");
        old.write(
            "opsctl.toml",
            &format!("[repository]\nlocation = \"s3://{bucket}/opsctl\"\nrecipients = [\"{recipient}\"]\n"),
        );
        old.back_up(&[]);
        sql("SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM members m")
        // The machine is lost here: its server, its data, its configuration and its state are removed.
    };

    let cluster = Cluster::start(&installed(), &[], &[]);
    // As Debian has it: over the socket each user of the system is the role of its name, and others need a password.
    let rules =
        "local all opsctl reject\nlocal all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(format!("{}/data/pg_hba.conf", cluster.dir), rules).unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let mut sandbox = Sandbox::new("");
    sandbox.unset("DATABASE_URL").unset("OPSCTL_REPOSITORY");
    let programs = cluster.bin_dir.display();
    sandbox.set("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin"));
    sandbox.set("PGHOST", &cluster.dir).set("PGPORT", &cluster.port);
    // What lies at /etc/opsctl on a machine that is nobody else's.
    let etc = sandbox.path("etc");
    let configuration = etc.join("opsctl.toml");
    sandbox.set("OPSCTL_CONFIG", configuration.to_str().unwrap());
    std::fs::copy(&identity, sandbox.path("identity.txt")).unwrap();
    let variables = s3.environment();
    let value = |wanted: &str| variables.iter().find(|(name, _)| *name == wanted).unwrap().1;
    let keys =
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| format!("'{}'", value(name)));
    // Whoever runs the tests is root here, in the server that is: to nobody else it opens its socket.
    let me = stock(Command::new("id").arg("-un")).trim().to_owned();
    let reader = Reader::of("disaster-recovery", &sandbox)
        .with("/etc/opsctl", etc.to_str().unwrap())
        .with("postgresql:///members", &cluster.url("members").replace("&user=postgres", ""))
        .with(
            "su postgres -c \"createuser --superuser root\"",
            &format!("createuser -U postgres --superuser {me}"),
        )
        .with("su postgres -c \"dropuser root\"", &format!("dropuser -U postgres {me}"))
        .with("s3://company-backups", &format!("s3://{bucket}"))
        .with("https://s3.example.com", value("AWS_ENDPOINT_URL"))
        .with("age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", &recipient)
        .with("'ID' 'KEY'", &keys.join(" "))
        .with("opsctl:…@localhost", &format!("opsctl:new@127.0.0.1:{}", cluster.port))
        .with("PASSWORD '…'", "PASSWORD 'new'");
    let mut lines = vec![("apt-get", But::IsLeftOut("the server is there"))];
    // `make test-package` has made a package: then the program out of that is the one that works.
    if let Ok(package) = std::env::var("OPSCTL_TEST_PACKAGE") {
        std::fs::copy(package, sandbox.path("opsctl_test.deb")).unwrap();
        let installs = "export PATH=$PWD/extracted/usr/bin:$PATH; [ -e extracted ] || dpkg-deb --extract opsctl_*.deb extracted";
        reader.finds("dpkg -i opsctl_*.deb", installs);
    } else {
        lines.push(("dpkg", But::IsLeftOut("the program is there alone, as the page has it, too")));
    }
    // The page says to write it, between the lines.
    std::fs::create_dir(&etc).unwrap();
    std::fs::write(&configuration, reader.block("toml")).unwrap();
    std::fs::set_permissions(&configuration, std::fs::Permissions::from_mode(0o600)).unwrap();
    let seen = reader.does("Check", &lines);
    let packed = sandbox.path("extracted/usr/bin/opsctl").exists();
    assert_eq!(packed, std::env::var_os("OPSCTL_TEST_PACKAGE").is_some());
    assert!(seen.iter().any(|run| run.stdout.trim() == recipient), "{seen:#?}");
    reader.does("Act", &[]);
    reader.does("Verify", &[]);

    the_night_works(&sandbox);

    // It serves: whoever worked with it works with it, and with nothing less than before.
    let app = |sql: &str| {
        let mut psql = cluster.program("psql");
        psql.args(["-XAtqv", "ON_ERROR_STOP=1", "-d", "members", "-c", sql]);
        stock(psql.env("PGUSER", "app")).trim_end().to_owned()
    };
    assert_eq!(app("SELECT md5(string_agg(m::text, '' ORDER BY id)) FROM members m"), known);
    assert_eq!(app("SELECT count(*), round(sum(amount)) FROM dues"), "5000|125025");
    assert_eq!(app("INSERT INTO members (name) VALUES ('after') RETURNING id"), "20001");
    let nobody = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{me}'");
    assert_eq!(app(&nobody), "0");
    let granted = "SELECT pg_has_role('app', 'reports', 'member'), has_table_privilege('reports', 'members', 'SELECT')";
    assert_eq!(app(granted), "t|t");
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'members'";
    assert_eq!(app(owner), "app");
}

/// Nobody is root in the server any more, and the line of the night works, with as little around it as cron gives.
fn the_night_works(sandbox: &Sandbox) {
    let crontab = std::fs::read_to_string(sandbox.path("opsctl.crontab")).unwrap();
    let line = crontab.lines().find_map(|line| Some(&line[line.find("opsctl backup --quiet")?..]));
    let bare = format!(
        "exec env -i HOME=\"$HOME\" PATH=\"$PATH\" OPSCTL_CONFIG=\"$OPSCTL_CONFIG\" OPSCTL_STATE_DIR=\"$OPSCTL_STATE_DIR\" \
         sh -c '{}'",
        line.unwrap_or_else(|| panic!("{crontab}"))
    );
    let night = Run::of(&mut sandbox.shell(&bare));
    assert_eq!((night.status, night.stdout.as_str(), night.stderr.as_str()), (0, "", ""));
    let backups = sandbox.json(0, &["backup", "list", "--database", "members"]).to_string();
    assert_eq!(backups.matches("\"backup\":").count(), 4, "{backups}");
}
