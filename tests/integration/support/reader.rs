//! Somebody who reads a runbook at night: types the lines of a part of it, one after the other, and compares what the page says that
//! is to be seen.
//!
//! What is typed is what stands there. Only places are others (a URL, a folder, a process), and each is named by the test, as is each
//! line that cannot be typed here, with the reason. A test that leaves a part of its page unread fails.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use super::{Run, Sandbox};

/// How a line does that is not simply typed, and well.
pub(crate) enum But {
    /// It ends with this status.
    Ends(i32),
    /// It is not typed, because of this.
    IsLeftOut(&'static str),
}

/// A reader of a page.
pub(crate) struct Reader<'s> {
    page: &'static str,
    text: String,
    sandbox: &'s Sandbox,
    /// What stands in the page, and what it is called here.
    places: RefCell<Vec<(String, String)>>,
    /// What was exported so far, and where to the reader has gone: that counts for the lines that follow.
    exports: RefCell<Vec<String>>,
    /// A process whose mounts the reader sees.
    inside: Option<u32>,
    unread: Rc<Unread>,
}

/// The blocks of a page that nobody has typed yet.
struct Unread {
    page: &'static str,
    blocks: RefCell<BTreeSet<String>>,
}

impl Drop for Unread {
    fn drop(&mut self) {
        let blocks = self.blocks.borrow();
        if !std::thread::panicking() {
            assert!(blocks.is_empty(), "{}: nobody has typed {blocks:#?}", self.page);
        }
    }
}

impl<'s> Reader<'s> {
    /// Opens a page.
    pub(crate) fn of(page: &'static str, sandbox: &'s Sandbox) -> Reader<'s> {
        let path = format!("{}/runbooks/{page}.md", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let (places, exports) = (RefCell::default(), RefCell::default());
        let lines = blocks(&text).into_iter().filter(|(language, _)| language == "sh");
        let lines = RefCell::new(lines.map(|(_, block)| block).collect());
        let unread = Rc::new(Unread { page, blocks: lines });
        Reader { page, text, sandbox, places, exports, inside: None, unread }
    }

    /// Returns somebody who reads the rest of the page elsewhere.
    pub(crate) fn elsewhere<'o>(&self, sandbox: &'o Sandbox) -> Reader<'o> {
        let (page, text, unread) = (self.page, self.text.clone(), Rc::clone(&self.unread));
        let (places, exports) = (RefCell::default(), RefCell::default());
        Reader { page, text, sandbox, places, exports, inside: None, unread }
    }

    /// Sits where another process sits: sees what is mounted there.
    pub(crate) fn beside(self, process: u32) -> Reader<'s> {
        Reader { inside: Some(process), ..self }
    }

    /// Says what something of the page is called here.
    pub(crate) fn with(self, in_the_page: &str, here: &str) -> Reader<'s> {
        self.finds(in_the_page, here);
        self
    }

    /// The same, when it is known only now.
    pub(crate) fn finds(&self, in_the_page: &str, here: &str) {
        assert!(self.text.contains(in_the_page), "{} has no `{in_the_page}`", self.page);
        self.places.borrow_mut().push((in_the_page.to_owned(), here.to_owned()));
    }

    /// Returns a block of the page in another language than the shell's, with the places that are here.
    pub(crate) fn block(&self, language: &str) -> String {
        let found = blocks(&self.text).into_iter().find(|(found, _)| found == language);
        self.here(&found.unwrap().1)
    }

    fn here(&self, text: &str) -> String {
        let places = self.places.borrow();
        places.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    /// Types all lines under a heading, and compares what is to be seen; `otherwise` is for those that begin like this.
    #[track_caller]
    pub(crate) fn does(&self, heading: &str, otherwise: &[(&str, But)]) -> Vec<Run> {
        let part = self.part(heading);
        let (mut typed, mut last, mut used) = (Vec::<Run>::new(), 0, vec![false; otherwise.len()]);
        for (language, block) in blocks(part) {
            match language.as_str() {
                "sh" => {
                    last = typed.len();
                    self.unread.blocks.borrow_mut().remove(&block);
                    for line in block.replace("\\\n", " ").lines().map(without_comment) {
                        if line.is_empty() || line.starts_with('#') {
                            continue;
                        }
                        let found =
                            otherwise.iter().position(|(begins, _)| line.starts_with(begins));
                        if let Some(n) = found {
                            used[n] = true;
                        }
                        let expected = match found.map(|n| &otherwise[n].1) {
                            Some(But::IsLeftOut(why)) => {
                                assert!(!why.is_empty());
                                continue;
                            }
                            Some(But::Ends(status)) => *status,
                            None => 0,
                        };
                        let line = self.here(line);
                        let run = self.types(&line);
                        assert_eq!(run.status, expected, "{}: {line}: {run:#?}", self.page);
                        typed.push(run);
                    }
                }
                "text" => {
                    let said = &typed[last..];
                    assert!(!said.is_empty(), "{}: nothing is typed above\n{block}", self.page);
                    for expected in block.lines().map(|line| self.here(line)) {
                        let lines = said
                            .iter()
                            .flat_map(|run| run.stdout.lines().chain(run.stderr.lines()));
                        let is_seen = lines.into_iter().any(|line| is_like(line, &expected));
                        assert!(
                            is_seen,
                            "{}: `{expected}` is not to be seen: {said:#?}",
                            self.page
                        );
                    }
                }
                _ => {}
            }
        }
        for ((begins, _), used) in otherwise.iter().zip(used) {
            assert!(used, "{}: no line of `{heading}` begins with `{begins}`", self.page);
        }
        assert!(!typed.is_empty(), "{}: `{heading}` has nothing to type", self.page);
        typed
    }

    fn types(&self, line: &str) -> Run {
        let mut exports = self.exports.borrow_mut();
        let here = self.sandbox.dir.path().display();
        let script = format!("cd {here}\n{}\n{line}", exports.join("\n"));
        if line.starts_with("export ") || line.starts_with("cd ") {
            exports.push(line.to_owned());
        }
        let shell = self.sandbox.shell(&script);
        match self.inside {
            Some(process) => Run::of(&mut beside(process, &shell)),
            None => Run::of(&mut { shell }),
        }
    }

    /// Returns what stands under a heading of any level, until the next one of its level.
    fn part(&self, heading: &str) -> &str {
        let level = |line: &str| line.bytes().take_while(|byte| *byte == b'#').count();
        let (mut start, mut depth, mut at, mut fenced) = (None, 0, 0, false);
        for line in self.text.split_inclusive('\n') {
            fenced ^= line.starts_with("```");
            let found = if fenced { 0 } else { level(line) };
            match start {
                None if found > 0 && line.trim_start_matches('#').trim() == heading => {
                    (start, depth) = (Some(at), found);
                }
                Some(start) if found > 0 && found <= depth => return &self.text[start..at],
                _ => {}
            }
            at += line.len();
        }
        &self.text[start.unwrap_or_else(|| panic!("{} has no `{heading}`", self.page))..]
    }
}

impl Sandbox {
    /// Returns a shell that does something here; it finds opsctl as people find it.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let opsctl = self.command(&[]);
        let program = Path::new(opsctl.get_program()).parent().unwrap();
        let path = opsctl.get_envs().find(|(name, _)| *name == "PATH").unwrap().1.unwrap();
        let mut bash = Command::new("bash");
        bash.args(["-o", "pipefail", "-c", script]).env_clear().stdin(std::process::Stdio::null());
        bash.envs(opsctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        bash.env("PATH", format!("{}:{}", program.display(), path.to_str().unwrap()));
        bash.current_dir(self.dir.path());
        bash
    }
}

/// Returns the command that does the same among the mounts of another process.
pub(crate) fn beside(process: u32, wanted: &Command) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--target", &process.to_string(), "--mount"]);
    command.arg(wanted.get_program()).args(wanted.get_args()).env_clear();
    command.envs(wanted.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(std::process::Stdio::null());
    command
}

/// Returns language and content of each code block.
fn blocks(text: &str) -> Vec<(String, String)> {
    let (mut blocks, mut open) = (Vec::new(), None::<(String, String)>);
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, block)), None) => *block += &format!("{line}\n"),
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (None, None) => {}
        }
    }
    blocks
}

fn without_comment(line: &str) -> &str {
    line.split(" #").next().unwrap().trim()
}

/// Has the line all that is expected, in this order? `…` stands for anything.
fn is_like(line: &str, expected: &str) -> bool {
    let mut rest = line;
    expected.split('…').all(|piece| {
        let found = rest.find(piece);
        rest = found.map_or("", |at| &rest[at + piece.len()..]);
        found.is_some()
    })
}
