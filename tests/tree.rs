//! Reading the tree as text, for the rules about it: its files, their code without comments, and what that imports.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every file of the project, by its path from the root.
pub(crate) fn files() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        const NOT_OURS: &[&str] = &[
            ".git",
            "target",
            "backups",
            "opsctl-demo",
            "corpus",
            "artifacts",
            "coverage",
            "node_modules",
        ];
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            // Not a link to somewhere else.
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                walk(&entry.path(), found);
            } else if kind.is_file() && name != ".git" {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    let name = |path: PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = found.into_iter().map(name).collect();
    names.sort();
    names
}

pub(crate) fn with_suffix(suffixes: &[&str]) -> Vec<String> {
    files().into_iter().filter(|f| suffixes.iter().any(|s| f.ends_with(s))).collect()
}

pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Returns the code of a file without comments and without what is only for tests.
pub(crate) fn code(text: &str) -> String {
    let end = text
        .find("#[cfg(test)]\nmod tests {")
        .or_else(|| text.find("#[cfg(test)]\npub(crate) mod tests {"));
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Returns the module of a file of `src`, such as `storage::s3`.
pub(crate) fn module(file: &str) -> String {
    let path = file.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

/// Is it compiled for tests or for fuzzing only?
pub(crate) fn is_for_tests(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap();
    ["tests.rs", "testing.rs", "suite.rs", "faulty.rs", "memory.rs", "documented.rs", "fuzzing.rs"]
        .contains(&name)
        || file.contains("/tests/")
        || file.contains("/testing/")
}

/// Returns every path behind `crate::`, with groups taken apart: `a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(crate) fn imports(code: &str) -> Vec<String> {
    fn expand(prefix: &str, text: &str, found: &mut Vec<String>) {
        let end =
            text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
        let path = format!("{prefix}{}", &text[..end]);
        let Some(group) = text[end..].strip_prefix('{') else {
            found.push(path.trim_end_matches(':').to_owned());
            return;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    let item = group[start..at].trim();
                    if !item.is_empty() {
                        expand(&path, item, found);
                    }
                    start = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    for (at, key) in code.match_indices("crate::") {
        // `$crate::` and names that end so are something else.
        if !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            expand("", &code[at + key.len()..], &mut found);
        }
    }
    found
}

pub(crate) fn is_in(path: &str, module: &str) -> bool {
    path == module || path.strip_prefix(module).is_some_and(|rest| rest.starts_with("::"))
}
