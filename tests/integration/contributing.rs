//! What CONTRIBUTING.md names is there: the recipes are followed by people who do not know the tree yet.

use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text of all sources below a folder.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|end| end == "rs") {
            text += &std::fs::read_to_string(&path).unwrap();
        }
    }
    text
}

#[test]
fn every_file_and_test_of_the_recipes_is_there() {
    let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let code = sources(&root().join("src")) + &sources(&root().join("tests"));
    let words = text.split('`').skip(1).step_by(2);
    let words = words.filter(|word| !word.contains([' ', '\n', '*']));
    // What a recipe makes is not there: "Say it is `…`".
    let examples: Vec<&str> =
        text.split("Say it is `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    let is_example = |word: &str| examples.iter().any(|example| word.ends_with(example));
    let folders = ["src/", "tests/", "docs/", "runbooks/", "scripts/", "packaging/"];
    let (mut paths, mut tests) = (0, 0);
    for word in words.filter(|word| !is_example(word)) {
        let is_file = [".md", ".toml", ".example"].iter().any(|end| word.ends_with(end));
        if is_file || folders.iter().any(|folder| word.starts_with(folder)) {
            assert!(root().join(word).exists(), "there is no {word}");
            paths += 1;
        } else if word.matches('_').count() >= 3 && word.to_lowercase() == word {
            // Long words with underscores are tests.
            assert!(code.contains(&format!("fn {word}(")), "there is no test {word}");
            tests += 1;
        }
    }
    assert!(paths > 30 && tests > 10, "{paths} paths, {tests} tests");
    // Names in the code that stand in the recipes: the arrays that a new thing goes into.
    for (file, name) in [
        ("src/cli/mod.rs", "const ABOUT_OPSCTL"),
        ("src/cli/mod.rs", "const QUESTIONS"),
        ("src/commands/mod.rs", "fn dispatch"),
        ("src/runbook.rs", "const PAGES"),
        ("src/health/kind/postgres.rs", "const KINDS"),
        ("src/health/postgres/age.rs", "const QUESTIONS"),
        ("src/health/check.rs", "struct Inquiry"),
        ("src/sessions/preset/table.rs", "const PRESETS"),
        ("src/config/sessions/mod.rs", "const PRESETS"),
        ("tests/tidy.rs", "const LAYERS"),
        ("tests/integration/health_postgres.rs", "fn worsens"),
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        assert!(text.contains(name), "{file} has no `{name}`: say it otherwise in CONTRIBUTING.md");
    }
}
