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

#[test]
fn who_is_called_is_put_into_the_pages() {
    let sandbox = Sandbox::new("");
    sandbox.write("opsctl.toml", "[contacts]\non_call = \"Ida, +49 30 5550100\"\n");
    let page = sandbox.run(&["runbook", "show", "README"]).expect(0);
    assert!(page.stdout.contains("Ida, +49 30 5550100"), "{}", page.stdout);
    assert!(page.stdout.contains("(contacts.dba is not in the configuration)"), "{}", page.stdout);
    assert!(!page.stdout.contains("{{"), "{}", page.stdout);

    // What is missing is said once more where the pages are written for a wiki.
    let out = sandbox.path("pages");
    let render = ["runbook", "render", "--out", out.to_str().unwrap()];
    let report = sandbox.json(0, &render);
    let missing = report["contacts_missing"].as_array().unwrap();
    assert!(missing.contains(&"dba".into()) && !missing.contains(&"on_call".into()), "{report}");
    let said = sandbox.run(&render).expect(0).stdout;
    assert!(
        said.contains("[contacts] of the configuration lacks ") && said.contains("dba"),
        "{said}"
    );
    let index = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(index.contains("Ida, +49 30 5550100") && !index.contains("{{"), "{index}");

    // Also while something else of the file is wrong, and by another file.
    let other = sandbox.write("other.toml", "[backup]\njobs = 0\n[contacts]\non_call = \"Ole\"\n");
    let other = ["--config", other.to_str().unwrap(), "runbook", "show", "README"];
    assert!(sandbox.run(&other).expect(0).stdout.contains("Ole"));
    for (wrong, why) in [("on_call = 5", "must be a string"), ("on_call = \"a\\nb\"", "one line")] {
        sandbox.write("opsctl.toml", &format!("[contacts]\n{wrong}\n"));
        let run = sandbox.run(&["runbook", "show", "README"]).expect(0);
        assert!(run.stdout.contains("(contacts.on_call is not in the configuration)"), "{run:#?}");
        assert!(run.stderr.contains("it is not known who is called") && run.stderr.contains(why));
        let check = sandbox.run(&["config", "check"]).expect(10);
        assert!(check.stdout.contains("opsctl.toml:2") && check.stdout.contains(why), "{check:#?}");
    }
}
