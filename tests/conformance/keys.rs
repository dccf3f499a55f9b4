//! Keys and values: their lengths and bytes, and what becomes of one key.

use raftkv_protocol::client::{Code, Condition, Consistency, Operation, Scan};

use crate::face::Outcome;
use crate::run::{Case, Run};

const KEY_BYTES_MAX: usize = 4 << 10;
const VALUE_BYTES_MAX: usize = 1 << 20;

pub const CASES: &[Case] = &[
    ("one key from absent to absent", one_key),
    ("the shortest and the longest key", lengths_of_keys),
    ("a key that is too long", too_long_key),
    ("a key that is empty", empty_key),
    ("values of every length", lengths_of_values),
    ("a value that is too long", too_long_value),
    ("keys of any bytes", any_bytes),
];

fn one_key(run: &mut Run<'_>) {
    let key = run.key("k");
    let fresh = [Consistency::Linearizable, Consistency::Lease];
    for consistency in fresh {
        assert_eq!(run.get_with(&key, consistency), Err(Code::NotFound));
    }
    assert_eq!(run.delete_if(&key, Condition::None), Ok(false));
    let first = run.put(&key, "one");
    let second = run.put(&key, "two");
    assert!(second > first, "versions grow: {first}, then {second}");
    for consistency in fresh {
        assert_eq!(run.get_with(&key, consistency), Ok((second, b"two".to_vec())));
    }
    assert_eq!(run.delete_if(&key, Condition::None), Ok(true));
    assert_eq!(run.delete_if(&key, Condition::None), Ok(false));
    assert_eq!(run.get(&key), Err(Code::NotFound));
    let third = run.put(&key, "two");
    assert!(third > second, "versions grow over a delete: {second}, then {third}");
    assert_eq!(run.get(&key), Ok((third, b"two".to_vec())));
}

fn lengths_of_keys(run: &mut Run<'_>) {
    let shortest = vec![0xc0 + run.number];
    let mut longest = run.key("");
    longest.resize(KEY_BYTES_MAX, b'k');
    let almost = longest[1..].to_vec();
    for key in [shortest, almost, longest] {
        let version = run.put(&key, &key);
        assert_eq!(run.get(&key), Ok((version, key.clone())));
        assert_eq!(run.delete_if(&key, Condition::None), Ok(true));
    }
}

/// Whatever is done with a key or up to a key.
#[track_caller]
fn refused_everywhere(run: &mut Run<'_>, key: &[u8], code: Code) {
    for condition in [Condition::None, Condition::Exists, Condition::Absent] {
        assert_eq!(run.put_if(key, "v", condition), Err(code));
        assert_eq!(run.delete_if(key, condition), Err(code));
    }
    for consistency in [Consistency::Linearizable, Consistency::Lease, Consistency::Stale] {
        assert_eq!(run.get_with(key, consistency), Err(code));
    }
}

fn too_long_key(run: &mut Run<'_>) {
    let mut key = run.key("");
    key.resize(KEY_BYTES_MAX + 1, b'k');
    refused_everywhere(run, &key, Code::TooLarge);
    let all = Scan::default();
    for scan in [Scan { prefix: &key, ..all }, Scan { start: &key, ..all }, Scan { end: &key, ..all }] {
        assert_eq!(run.page(scan), Err(Code::TooLarge));
    }
}

fn empty_key(run: &mut Run<'_>) {
    refused_everywhere(run, b"", Code::BadRequest);
}

fn lengths_of_values(run: &mut Run<'_>) {
    let key = run.key("k");
    let longest: Vec<u8> = (0..VALUE_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    for length in [0, 1, 256, VALUE_BYTES_MAX - 1, VALUE_BYTES_MAX] {
        let version = run.put(&key, &longest[..length]);
        let (read_version, read) = run.get(&key).expect("just written");
        assert!(read_version == version && read == longest[..length], "{length} bytes came back as {}", read.len());
    }
}

fn too_long_value(run: &mut Run<'_>) {
    let key = run.key("k");
    let version = run.put(&key, "old");
    let too_long = vec![b'v'; VALUE_BYTES_MAX + 1];
    for condition in [Condition::None, Condition::Exists] {
        let outcome = run.ask(Operation::Put { key: &key, value: &too_long, condition });
        assert_eq!(outcome, Outcome::Refused(Code::TooLarge));
    }
    assert_eq!(run.get(&key), Ok((version, b"old".to_vec())));
}

fn any_bytes(run: &mut Run<'_>) {
    let names: [&[u8]; 20] = [
        b"",
        b"\0",
        b"\0\0",
        b"\n\r\t",
        b" ",
        b"\"'\\",
        b"#?&=+;",
        b"%",
        b"%2F",
        b".",
        b"..",
        b"../..",
        b"/",
        b"//",
        b"a/b",
        b"{tag}",
        b"{tag}x{other}",
        "\u{e4}\u{1f511}".as_bytes(),
        b"\xc3\x28",
        b"\xff\xff",
    ];
    let mut written = Vec::new();
    for name in names {
        let key = run.key(name);
        let version = run.put(&key, name);
        written.push((key, version, name));
    }
    for (key, version, name) in &written {
        assert_eq!(run.get(key), Ok((*version, name.to_vec())), "{}", name.escape_ascii());
    }
    written.sort();
    let prefix = run.key("");
    let page = run.page(Scan { prefix: &prefix, ..Scan::default() }).expect("a page");
    let found: Vec<_> = page.items.iter().map(|item| (&item.key, item.version.0, &item.value[..])).collect();
    let expected: Vec<_> = written.iter().map(|(key, version, name)| (key, *version, *name)).collect();
    assert_eq!(found, expected);
    for (key, ..) in &written {
        assert_eq!(run.delete_if(key, Condition::None), Ok(true));
    }
}
