//! What `README.md` says about the protocol is what the code does: its tables and examples are read and compared.

use raftkv_protocol::client::Code;
use raftkv_protocol::frame::{CLIENT_FRAME_MAX, PEER_FRAME_MAX};
use raftkv_protocol::hello::HelloRefusal;
use raftkv_protocol::kind;
use raftkv_protocol::types::Slot;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::golden::{parse_hex, read};
use crate::samples;

const SPECIFICATION: &str = include_str!("../../README.md");

/// The rows of all tables whose header begins with these columns, as cells without backquotes.
fn table(header: &str) -> Vec<Vec<String>> {
    let lines = SPECIFICATION.lines().skip_while(|line| !line.starts_with(header));
    let rows = lines.skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> =
        rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect()).collect();
    assert!(!rows.is_empty(), "no table begins with {header}");
    rows
}

/// The blocks in the language `hex NAME`: name and listing.
fn hex_blocks() -> Vec<(&'static str, &'static str)> {
    SPECIFICATION
        .split("```hex ")
        .skip(1)
        .map(|block| {
            let (name, rest) = block.split_once('\n').expect("a name ends its line");
            let (listing, _) = rest.split_once("```").expect("a block ends");
            (name, listing)
        })
        .collect()
}

#[test]
fn the_examples_are_the_golden_frames() {
    let blocks = hex_blocks();
    assert!(blocks.len() >= 10, "the session is there");
    for (name, listing) in blocks {
        assert_eq!(parse_hex(listing), parse_hex(&read(name)), "{name}");
    }
}

#[test]
fn the_table_of_kinds_is_complete() {
    let written: Vec<(String, String)> =
        table("| kind | name | from |").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known = kind::ALL.map(|(kind, name)| (format!("{kind:#04x}"), name.to_owned()));
    assert_eq!(written, known);
}

#[test]
fn no_reserved_kind_is_in_use() {
    for row in table("| kind | for |") {
        let numbers: Vec<u8> = row[0]
            .split(|character: char| !character.is_ascii_alphanumeric())
            .filter_map(|word| word.strip_prefix("0x"))
            .map(|digits| u8::from_str_radix(digits, 16).expect("a kind"))
            .collect();
        assert!(!numbers.is_empty());
        assert!(numbers.iter().all(|number| kind::name(*number).is_none()), "{row:?}");
    }
}

// rule 31
#[test]
fn the_table_of_codes_says_what_the_code_does() {
    let yes_or_no = |yes| if yes { "yes" } else { "no" };
    let rows = table("| number | code | meaning | send again? | may be applied? |");
    assert_eq!(rows.len(), Code::all().count());
    for (row, code) in rows.iter().zip(Code::all()) {
        let expected = [yes_or_no(code.is_retryable()), yes_or_no(code.maybe_applied())];
        assert_eq!((row[0].as_str(), row[1].as_str()), ((code as u8).to_string().as_str(), code.name()));
        assert_eq!([row[3].as_str(), row[4].as_str()], expected, "{code}");
    }
}

#[test]
fn the_table_of_hello_refusals_is_complete() {
    let rows = table("| number | reason | meaning |");
    for (row, number) in rows.iter().zip(0..) {
        assert_eq!((row[0].clone(), row[1].as_str()), (number.to_string(), HelloRefusal::from_u8(number).name()));
    }
    assert_eq!(HelloRefusal::from_u8(rows.len() as u8), HelloRefusal::Other);
}

// rule 27
#[test]
fn the_slots_of_the_test_vectors_are_right() {
    let rows = table("| key | bytes of the key | hashed |");
    assert!(rows.len() >= 8);
    for row in rows {
        let key: Vec<u8> = row[1]
            .as_bytes()
            .chunks(2)
            .map(|digits| {
                u8::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("two hexadecimal digits")
            })
            .collect();
        let slot = Slot::of(&key);
        assert_eq!((slot.to_string(), slot.shard(12).to_string()), (row[4].clone(), row[5].clone()), "{row:?}");
        let hashed = if row[2] == row[0] { &key[..] } else { row[2].as_bytes() };
        assert_eq!(format!("{:016x}", xxh3_64(hashed)), row[3], "{row:?}");
    }
}

#[test]
fn the_cluster_id_of_the_test_vector_is_right() {
    let (_, rest) = SPECIFICATION.split_once("```cluster-id\n").expect("the vector's input");
    let (input, rest) = rest.split_once("```").expect("the block ends");
    let id = samples::cluster();
    assert_eq!(xxh3_128(&parse_hex(input)), id.0);
    assert!(rest.trim_start().starts_with(&format!("and the cluster id `{id}`")));
}

#[test]
fn the_frame_caps_are_those_of_the_code() {
    let written: Vec<String> = table("| what | limit | over it |").into_iter().map(|row| row[1].clone()).collect();
    for cap in [CLIENT_FRAME_MAX, PEER_FRAME_MAX] {
        assert!(written.iter().any(|limit| limit.replace(',', "").starts_with(&format!("{cap} bytes"))), "{cap}");
    }
}
