//! The pictures of the documents: what draws them shows a terminal as it is, and they show nothing of the machine that made them.

use std::path::Path;
use std::process::Command;

use crate::support::{Run, stock};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn draw(options: &[&str], script: &str) -> Run {
    let mut command = Command::new("python3");
    command.arg(root().join("scripts/terminal_to_svg.py")).args(options);
    Run::of(command.args(["--", "sh", "-c", script]))
}

#[test]
fn a_terminal_is_drawn_as_it_is_at_the_end() {
    // The last one would be there if the bar had not been wiped out.
    assert!(draw(&[], r"printf ' 10 %%'").expect(0).stdout.contains(" %<"));
    // A bar that was redrawn, colours, a line that is too long, and what only this machine has.
    let script = r"printf '\033[1;31mBAD\033[0m <one> & two\r\n'; printf ' 10 %%\r\033[2K 90 %%\r\033[2Kdone in /machine/x\r\n'; printf 'abcdefghijklmnopqrstuvwxyz'; test -t 1";
    let options = ["--columns", "20", "--shown", "opsctl x", "--replace", "/machine/=~/"];
    let svg = draw(&options, script).expect(0).stdout;
    for text in [
        ">$</text>",
        " font-weight=\"bold\">opsctl x</text>",
        " fill=\"#ff6b6b\" font-weight=\"bold\">BAD</text>",
        "> &lt;one&gt; &amp; two</text>",
        ">done in ~/x</text>",
        ">abcdefghijklmnopqrst</text>",
        ">uvwxyz</text>",
    ] {
        assert!(svg.contains(text), "{text}: {svg}");
    }
    assert!(!svg.contains(" %<"), "what was wiped out is not there: {svg}");
    // A command that fails is no picture, unless that is what is to be shown.
    assert_ne!(draw(&[], "exit 3").status, 0);
    draw(&["--status", "3"], "exit 3").ends_with(0);
}

#[test]
fn the_pictures_are_sound_and_show_nothing_of_the_machine() {
    let images = root().join("docs/images");
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let entries = std::fs::read_dir(&images).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = entries.collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(
            readme.contains(&format!("](docs/images/{name})")),
            "README.md does not show {name}"
        );
        if name.ends_with(".png") {
            assert!(std::fs::read(&file).unwrap().starts_with(b"\x89PNG\r\n"), "{name}");
            continue;
        }
        let parse = "import sys, xml.etree.ElementTree as tree; tree.parse(sys.argv[1])";
        stock(Command::new("python3").args(["-c", parse]).arg(&file));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains("opsctl"), "{name}");
        for place in ["/tmp/", "/home/", "127.0.0.1", concat!("/ro", "ot/"), concat!("/wo", "rk/")]
        {
            assert!(!text.contains(place), "{name} shows {place}: make screenshots");
        }
    }
}
