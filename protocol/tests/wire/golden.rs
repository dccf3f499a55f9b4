//! Golden frames in `testdata/`: what one release wrote, every later one reads and writes alike.
//!
//! A file is the decoded form as a comment, then the bytes. Files are added, never edited: a changed one is a broken
//! protocol. `UPDATE_GOLDEN=1` writes those that are missing or differ.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use raftkv_protocol::kind;

use crate::message::{AnyMessage, open};
use crate::samples;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The bytes of a hex listing: `#` lines are comments, `…:` is an offset, what follows a `;` explains the line.
pub fn parse_hex(listing: &str) -> Vec<u8> {
    listing
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split(';').next().unwrap_or_default().split_whitespace())
        .filter(|word| !word.ends_with(':'))
        .map(|word| u8::from_str_radix(word, 16).unwrap_or_else(|_| panic!("{word:?} is not a byte")))
        .collect()
}

pub fn read(name: &str) -> String {
    let path = directory().join(format!("{name}.hex"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn render(message: &AnyMessage<'_>) -> String {
    let mut listing = format!("# {message:?}\n");
    for (line, bytes) in message.frame().chunks(16).enumerate() {
        write!(listing, "{:04x}:", line * 16).expect("a string takes everything");
        for byte in bytes {
            write!(listing, " {byte:02x}").expect("a string takes everything");
        }
        listing.push('\n');
    }
    listing
}

#[test]
fn every_message_is_written_as_its_golden_file_says() {
    for (name, message) in samples::all() {
        let path = directory().join(format!("{name}.hex"));
        let rendered = render(&message);
        if std::env::var_os("UPDATE_GOLDEN").is_some() && fs::read_to_string(&path).ok().as_ref() != Some(&rendered) {
            fs::write(&path, &rendered).expect("testdata can be written");
        }
        assert_eq!(read(&name), rendered, "{name}.hex");
    }
}

#[test]
fn every_golden_file_is_read_as_its_comment_says() {
    for (name, message) in samples::all() {
        let listing = read(&name);
        let bytes = parse_hex(&listing);
        let (kind, payload) = open(&bytes);
        let decoded = AnyMessage::decode(kind, payload).unwrap_or_else(|error| panic!("{name}.hex: {error}"));
        assert_eq!(listing.lines().next(), Some(format!("# {decoded:?}").as_str()), "{name}.hex");
        assert_eq!(decoded, message, "{name}.hex");
    }
}

#[test]
fn no_golden_file_is_forgotten_and_no_kind_lacks_one() {
    let samples: BTreeSet<String> = samples::all().into_iter().map(|(name, _)| format!("{name}.hex")).collect();
    let files: BTreeSet<String> = fs::read_dir(directory())
        .expect("testdata is there")
        .map(|file| file.expect("its entries can be read").file_name().into_string().expect("names are ASCII"))
        .collect();
    assert_eq!(files, samples);

    let covered: BTreeSet<u8> = samples::all().iter().map(|(_, message)| message.frame()[8]).collect();
    let kinds: BTreeSet<u8> = kind::ALL.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(covered, kinds);
}
