use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use raftkv_protocol::client::{Code, Condition, Consistency};
use raftkv_protocol::types::Index;

use super::params::{AskedScan, condition, consistency, cursor_behind, decode, has_already, scan};

fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = given.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
        headers.append(name, value);
        headers
    })
}

#[test]
fn percent_encoding_stands_for_any_bytes() {
    assert_eq!(decode("a%2Fb%00%fF"), &b"a/b\0\xff"[..]);
    assert_eq!(decode("100%"), &b"100%"[..], "what is no encoding stands for itself");
}

#[test]
fn a_query_asks_for_a_scan() {
    let query = "prefix=a%00&start=b+c&end=%ff&limit=7&page=true&reverse=true&consistency=stale";
    let AskedScan { scan: asked, is_page } = scan(Some(query)).expect("a scan");
    assert!(is_page);
    assert_eq!((&asked.prefix[..], &asked.start[..], &asked.end[..]), (&b"a\0"[..], &b"b c"[..], &b"\xff"[..]));
    assert_eq!((asked.limit, asked.reverse, asked.consistency), (7, true, Consistency::Stale));
    let key = b"any\0\xff/bytes";
    let next = scan(Some(&format!("cursor={}", cursor_behind(key)))).expect("a scan");
    assert_eq!((&next.scan.cursor[..], next.is_page), (&key[..], false));
    let whole = scan(None).expect("a scan").scan;
    assert_eq!((whole.cursor.len(), whole.limit), (0, 0));
    assert_eq!(scan(Some("limit=0")).expect("a scan").scan.limit, 0, "as without a limit");
}

#[test]
fn what_a_query_cannot_mean_is_refused_by_name() {
    for (query, part) in [
        ("limit=-1", "limit `-1`"),
        ("limit=4294967296", "limit `4294967296`"),
        ("reverse=up", "reverse=up"),
        ("page=2", "page=2"),
        ("cursor=*", "cursor"),
        ("consistency=old", "old"),
        ("consistency=%ff", "UTF-8"),
        ("pre=a", "`pre`"),
    ] {
        let refusal = scan(Some(query)).expect_err(query);
        assert_eq!(refusal.code, Code::BadRequest);
        assert!(refusal.message.contains(part), "{query}: {}", refusal.message);
    }
    assert!(consistency(Some("consistency=stale&x=1")).is_err());
}

#[test]
fn conditions_come_from_headers() {
    for (given, meant) in [
        (vec![], Condition::None),
        (vec![("if-match", "*")], Condition::Exists),
        (vec![("if-match", "\"12\"")], Condition::Version(Index(12))),
        (vec![("if-match", " \"0\" ")], Condition::Version(Index(0))),
        (vec![("if-none-match", "*")], Condition::Absent),
    ] {
        assert_eq!(condition(&headers(&given)).expect("a condition"), meant, "{given:?}");
    }
    for given in [
        vec![("if-match", "12")],
        vec![("if-match", "W/\"12\"")],
        vec![("if-match", "\"1\", \"2\"")],
        vec![("if-match", "\"+1\"")],
        vec![("if-match", "\"\"")],
        vec![("if-match", "\"18446744073709551616\"")],
        vec![("if-none-match", "\"12\"")],
        vec![("if-match", "*"), ("if-none-match", "*")],
        vec![("if-match", "\"1\""), ("if-match", "\"2\"")],
    ] {
        assert_eq!(condition(&headers(&given)).expect_err("no condition").code, Code::BadRequest, "{given:?}");
    }
}

#[test]
fn a_reader_that_has_the_version_says_so() {
    for (tags, has) in [("\"5\"", true), ("W/\"5\"", true), ("\"4\", \"5\"", true), ("*", true), ("\"4\"", false)] {
        let mut headers = HeaderMap::new();
        headers.insert("if-none-match", HeaderValue::from_str(tags).expect("a header"));
        assert_eq!(has_already(&headers, Index(5)), has, "{tags}");
    }
}
