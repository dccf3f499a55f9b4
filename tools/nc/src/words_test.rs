use super::words::{escape, is_hidden, parse_hex, quote, split, unescape};

fn words(line: &str) -> Vec<Vec<u8>> {
    split(line.as_bytes()).unwrap()
}

#[test]
fn words_are_split_quoted_and_escaped() {
    assert_eq!(words("put k v"), [b"put", &b"k"[..], b"v"]);
    assert_eq!(words("  put\tk   "), [&b"put"[..], b"k"]);
    assert_eq!(words(r#"put "a b" """#), [&b"put"[..], b"a b", b""]);
    assert_eq!(words(r#"a"b c"d"#), [b"ab cd"]);
    assert_eq!(words(r#"\x00\xFf\n\t\r\\\" "\"""#), [&b"\x00\xff\n\t\r\\\""[..], b"\""]);
    assert_eq!(words(r"a\x20b"), [b"a b"], "an escaped space separates nothing");
    assert!(words("   ").is_empty());
}

#[test]
fn bad_words_are_refused() {
    for line in [r#"put "k"#, r"\", r"\x1", r"\xgg", r"\q"] {
        assert!(split(line.as_bytes()).is_err(), "{line}");
    }
    assert!(unescape(br"\q").is_err());
    assert_eq!(unescape(br#"a "b" \x41"#).unwrap(), br#"a "b" A"#);
}

#[test]
fn what_is_shown_can_be_typed_in_again() {
    let mut all: Vec<u8> = (0..=255).collect();
    all.extend("é 東京 \u{202e} \u{a0} \"#@-".as_bytes());
    for bytes in [&all[..], b"", b"plain", b"@1", b"-x", b"a b", "\u{7f}ü".as_bytes()] {
        let shown = quote(bytes);
        assert!(!shown.chars().any(is_hidden), "{shown}");
        assert_eq!(words(&shown), [bytes]);
        assert_eq!(unescape(escape(bytes).as_bytes()).unwrap(), bytes);
    }
    assert_eq!(escape("zürich\x00".as_bytes()), "zürich\\x00");
}

#[test]
fn hexadecimal_digits_are_bytes() {
    assert_eq!(parse_hex(b"00 fF\t1a").unwrap(), [0, 255, 26]);
    assert!(parse_hex(b"0").is_err());
    assert!(parse_hex(b"zz").is_err());
}
