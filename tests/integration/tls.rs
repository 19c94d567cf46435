//! TLS to the last: opsctl and its children verify the server by an authority of one's own, or do not connect.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::Path;

use crate::support::patient::{errors, sandbox};
use crate::support::{Cluster, authority, installed};

#[test]
fn the_server_and_its_name_are_verified_by_opsctl_and_by_pg_dump() {
    let cluster = Cluster::start(&installed(), &[], &[]);
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 10) AS n");
    let mut sandbox = sandbox("");
    let (ca, other) =
        (authority(sandbox.dir.path(), "own"), authority(sandbox.dir.path(), "other"));
    let data = Path::new(&cluster.dir).join("data");
    let owner = data.metadata().unwrap();
    for (from, to) in [("own-leaf.pem", "server.crt"), ("own-leaf.key", "server.key")] {
        let to = data.join(to);
        std::fs::copy(sandbox.path(from), &to).unwrap();
        std::fs::set_permissions(&to, PermissionsExt::from_mode(0o600)).unwrap();
        chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    // By network only with TLS: whoever gets in has used it.
    std::fs::write(
        data.join("pg_hba.conf"),
        "local all all trust\nhostssl all all 127.0.0.1/32 trust\n",
    )
    .unwrap();
    cluster.sql("postgres", "ALTER SYSTEM SET ssl = on");
    let loaded = "SELECT pg_conf_load_time()";
    let before = cluster.sql("postgres", loaded);
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let is_loaded = || {
        (cluster.sql("postgres", loaded) != before && cluster.sql("postgres", "SHOW ssl") == "on")
            .then_some(())
    };
    crate::support::running::eventually("TLS is on", is_loaded);

    let url = |host: &str, mode: &str, ca: &Path| {
        format!(
            "postgresql://postgres@{host}:{}/{database}?sslmode={mode}&sslrootcert={}",
            cluster.port,
            ca.display()
        )
    };
    sandbox.set("DATABASE_URL", url("localhost", "verify-full", &ca));
    let id = sandbox.back_up(&[]);
    sandbox.run(&["verify-backup", "--backup", &id]).expect(0).silence();
    for (how, url) in [
        ("another authority", url("localhost", "verify-full", &other)),
        ("another authority", url("localhost", "verify-ca", &other)),
        ("another name", url("127.0.0.1", "verify-full", &ca)),
        ("no TLS", url("localhost", "disable", &ca)),
    ] {
        sandbox.set("DATABASE_URL", url);
        let run = sandbox.run(&["backup"]).expect(12);
        assert_eq!(errors(&run).len(), 1, "{how}: {run:#?}");
    }
    // health-check looks at the same certificate.
    let look = |name: &str, authority: &str| {
        let config = format!(
            "[[health.tls]]\nname = \"it\"\nhost = \"127.0.0.1\"\nport = {}\nstarttls = \"postgres\"\nretries = 0\n\
             server_name = \"{name}\"\nca_file = \"{authority}-ca.pem\"\nwarning = \"1d\"\ncritical = \"1d\"\n",
            cluster.port
        );
        sandbox.write("opsctl.toml", &config);
        sandbox.run(&["health-check", "--only", "tls", "--verbose"])
    };
    let run = look("localhost", "own").expect(0);
    assert!(run.stdout.contains("expires in 2 days"), "{run:#?}");
    for (name, authority, words) in [
        ("localhost", "other", "is not trusted"),
        ("elsewhere", "own", "for another name: localhost"),
    ] {
        let run = look(name, authority).expect(2);
        assert!(run.stdout.contains(words), "{run:#?}");
    }
    // The name does not matter to this mode.
    sandbox.set("DATABASE_URL", url("127.0.0.1", "verify-ca", &ca));
    sandbox.run(&["backup"]).expect(0).silence();
    sandbox.set("DATABASE_URL", url("localhost", "verify-full", Path::new("/nowhere/ca.pem")));
    let run = sandbox.run(&["backup"]);
    assert!(
        [10, 12].contains(&run.status) && errors(&run)[0].contains("/nowhere/ca.pem"),
        "{run:#?}"
    );
}
