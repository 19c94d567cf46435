//! `opsctl db-maintain`: what is planned and done on real servers, and what is left alone.

use crate::support::{Cluster, Sandbox};

#[test]
fn a_standby_is_refused() {
    let primary = Cluster::start(&crate::support::installed(), &["-c", "wal_level=replica"], &[]);
    primary.sql("postgres", "SELECT pg_create_physical_replication_slot('standby')");
    let standby = Cluster::standby(&primary, "standby");
    let sandbox = Sandbox::new(&standby.url("postgres"));
    let run = sandbox.run(&["db-maintain"]).expect(1);
    assert!(run.stderr.contains("this server is a standby"), "{run:#?}");
    sandbox.run(&["db-maintain", "plan"]).ends_with(1);
}
