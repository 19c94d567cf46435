//! `opsctl runbook`: the pages are there without anything else.

use crate::support::Sandbox;

#[test]
fn pages_are_listed_shown_and_written_without_configuration_or_server() {
    let sandbox = Sandbox::new("postgresql:///nowhere?host=/nowhere");
    sandbox.write("opsctl.toml", "nonsense");
    let list = sandbox.run(&["runbook", "list"]).expect(0).stdout;
    assert!(
        list.lines()
            .any(|line| line.starts_with("restore ") && line.ends_with("Restoring a database")),
        "{list}"
    );
    let page = sandbox.run(&["runbook", "show", "restore"]).expect(0).stdout;
    assert_eq!(page, include_str!("../../runbooks/restore.md"));
    let part = sandbox.run(&["runbook", "show", "health-check.md#xid-age"]).expect(0).stdout;
    assert!(part.starts_with("### xid-age\n") && !part.contains("### multixact-age"), "{part}");
    for wrong in ["no-such", "restore#no-such"] {
        sandbox.run(&["runbook", "show", wrong]).ends_with(2);
    }
    let out = sandbox.path("pages");
    let render = ["runbook", "render", "--out", out.to_str().unwrap()];
    sandbox.run(&render).ends_with(0);
    sandbox.run(&render).ends_with(0);
    assert_eq!(
        std::fs::read_to_string(out.join("status.md")).unwrap(),
        include_str!("../../runbooks/status.md")
    );
    std::fs::write(out.join("status.md"), "ours").unwrap();
    sandbox.run(&render).ends_with(2);
    assert_eq!(std::fs::read_to_string(out.join("status.md")).unwrap(), "ours");
    sandbox.run(&[&render[..], &["--force"]].concat()).ends_with(0);
}
