//! The pages and completions are whole, and the programs that read them accept them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

fn written() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    raftkv_manual::write(dir.path()).expect("it is written");
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).expect("it is there").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files
}

/// Whether a tool is there. Where it is missing the test says so and is over; with `RAFTKV_REQUIRE_TOOLS=1` it fails.
fn have(test: &str, tool: &str) -> bool {
    let runs = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !runs {
        assert!(std::env::var_os("RAFTKV_REQUIRE_TOOLS").is_none(), "{test} needs {tool}");
        println!("SKIPPED {test}: there is no {tool} here");
    }
    runs
}

/// Runs a tool over a file; it must end well, and say nothing.
fn accepts(tool: &str, args: &[&str], file: &Path) {
    let output = Command::new(tool).args(args).arg(file).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{tool} {}: {said}", file.display());
}

#[test]
fn every_flag_is_in_the_page_and_in_the_completions_of_its_program() {
    let dir = written();
    for program in raftkv_manual::programs() {
        let name = program.get_name();
        let read =
            |file: String| fs::read_to_string(dir.path().join(&file)).unwrap_or_else(|_| panic!("{file} is there"));
        let page = read(format!("man1/{name}.1")).replace("\\-", "-");
        let bash = read(format!("bash/{name}.bash"));
        let zsh = read(format!("zsh/_{name}"));
        let fish = read(format!("fish/{name}.fish"));
        let flags: Vec<&str> = program.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert!(!flags.is_empty());
        for flag in flags {
            for (kind, text) in [("page", &page), ("bash", &bash), ("zsh", &zsh)] {
                assert!(text.contains(&format!("--{flag}")), "--{flag} is not in the {kind} of {name}");
            }
            assert!(fish.contains(&format!("-l {flag}")), "--{flag} is not in the fish of {name}");
        }
        for command in program.get_subcommands() {
            read(format!("man1/{name}-{}.1", command.get_name()));
        }
    }
}

#[test]
fn man_pages_are_formatted_without_a_warning() {
    if !have("man_pages_are_formatted_without_a_warning", "groff") {
        return;
    }
    let dir = written();
    for page in files(&dir.path().join("man1")) {
        accepts("groff", &["-man", "-ww", "-z", "-Tutf8", "-Kutf8"], &page);
    }
}

#[test]
fn shells_understand_their_completions() {
    let dir = written();
    for shell in ["bash", "zsh"] {
        if have("shells_understand_their_completions", shell) {
            files(&dir.path().join(shell)).iter().for_each(|file| accepts(shell, &["-n"], file));
        }
    }
}
