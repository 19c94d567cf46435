//! `opsctl backup`.

use crate::support::{Cluster, Sandbox};

#[test]
fn backs_up_and_lists() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.sql(&database, "CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    let sandbox = Sandbox::new(&cluster.url(&database));
    let id = sandbox.back_up(&[]);
    let report = sandbox.json(0, &["backup", "list"]);
    let listed = &report["databases"][0]["repositories"][0]["backups"][0];
    assert_eq!(
        (listed["backup"].as_str(), listed["totals"]["rows"].as_u64()),
        (Some(id.as_str()), Some(1000))
    );
}
