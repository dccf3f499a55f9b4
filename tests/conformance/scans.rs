//! Scans: which keys, in which order, and where pages end.

use raftkv_protocol::client::{Code, Condition, Consistency, Scan};

use crate::face::More;
use crate::run::{Case, Run};
use crate::{SCAN_BYTES_MAX, SCAN_ITEMS_MAX};

pub const CASES: &[Case] = &[
    ("ranges of a scan", ranges),
    ("limits of a scan", limits),
    ("a scan as a whole", whole),
    ("a page and what it tells", page),
    ("pages of long values", long_values),
    ("a scan that goes on while keys come and go", moving),
    ("a scan without keys", nothing),
];

/// More than a page holds, over all shards: `a00` to `a24`, `b`, and bytes at both ends.
fn fill(run: &mut Run<'_>) -> Vec<String> {
    let mut names: Vec<Vec<u8>> = (0..25).map(|n| format!("a{n:02}").into_bytes()).collect();
    names.extend([b"b".to_vec(), b"\0".to_vec(), b"\xff\xff".to_vec()]);
    for name in &names {
        let key = run.key(name);
        run.put(&key, name);
    }
    names.sort();
    names.iter().map(|name| name.escape_ascii().to_string()).collect()
}

fn ranges(run: &mut Run<'_>) {
    let all = fill(run);
    let key = |name: &[u8]| run.key(name);
    let [space, a, a1, a05, a15, b, top] = [&b""[..], b"a", b"a1", b"a05", b"a15", b"b", b"\xff\xff\xff"].map(key);
    let scan = Scan { prefix: &space, ..Scan::default() };
    let from = |wanted: fn(&str) -> bool| all.iter().filter(|name| wanted(name)).cloned().collect::<Vec<_>>();
    let ranges: [(Scan<'_>, Vec<String>); 9] = [
        (scan, all.clone()),
        (Scan { start: &space, end: &top, ..Scan::default() }, all.clone()),
        (Scan { prefix: &a, ..scan }, from(|name| name.starts_with('a'))),
        (Scan { prefix: &a1, ..scan }, from(|name| name.starts_with("a1"))),
        (Scan { start: &a05, end: &a15, ..scan }, from(|name| ("a05".."a15").contains(&name))),
        (Scan { start: &a15, ..scan }, from(|name| name >= "a15" || name.starts_with("\\xff"))),
        (Scan { end: &a05, ..scan }, from(|name| name < "a05" && !name.starts_with("\\xff") || name == "\\x00")),
        (Scan { prefix: &a1, start: &a05, end: &b, ..scan }, from(|name| name.starts_with("a1"))),
        (Scan { start: &b, end: &a, ..scan }, Vec::new()),
    ];
    for (scan, mut expected) in ranges {
        for reverse in [false, true] {
            for consistency in [Consistency::Linearizable, Consistency::Lease] {
                assert_eq!(run.pages(Scan { reverse, consistency, ..scan }).concat(), expected, "{scan:?}");
            }
            expected.reverse();
        }
    }
}

fn limits(run: &mut Run<'_>) {
    let mut all = fill(run);
    let space = run.key("");
    for reverse in [false, true] {
        for limit in [0, 1, 7, SCAN_ITEMS_MAX, SCAN_ITEMS_MAX + 1, all.len(), usize::MAX] {
            let scan = Scan { prefix: &space, reverse, limit: limit.min(u32::MAX as usize) as u32, ..Scan::default() };
            let pages = run.pages(scan);
            let most = if limit == 0 { SCAN_ITEMS_MAX } else { limit.min(SCAN_ITEMS_MAX) };
            let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
            assert!(lengths[..lengths.len() - 1].iter().all(|length| *length == most), "{limit}: {lengths:?}");
            assert_eq!(pages.concat(), all, "{limit}");
        }
        all.reverse();
    }
}

/// A limit of 0 is the same as none.
fn whole(run: &mut Run<'_>) {
    let mut all = fill(run);
    let space = run.key("");
    for reverse in [false, true] {
        for limit in [0, 1, SCAN_ITEMS_MAX, SCAN_ITEMS_MAX + 1, all.len(), u32::MAX as usize] {
            let most = if limit == 0 { all.len() } else { limit.min(all.len()) };
            let scan = Scan { prefix: &space, reverse, limit: limit as u32, ..Scan::default() };
            assert_eq!(run.whole(scan), all[..most], "{limit}");
        }
        all.reverse();
    }
}

fn page(run: &mut Run<'_>) {
    let key = |run: &Run<'_>, n: usize| run.key(format!("{n:02}"));
    let mut versions = Vec::new();
    for n in 0..SCAN_ITEMS_MAX {
        let key = key(run, n);
        versions.push(run.put(&key, n.to_string()));
    }
    let space = run.key("");
    let scan = Scan { prefix: &space, ..Scan::default() };
    let whole = run.page(scan).expect("a page");
    assert_eq!(whole.more, More::No, "the page holds exactly what there is");
    for (n, item) in whole.items.iter().enumerate() {
        assert_eq!((&item.key, item.version.0, &item.value), (&key(run, n), versions[n], &n.to_string().into_bytes()));
    }
    let one = run.page(Scan { limit: 1, ..scan }).expect("a page");
    assert_eq!((one.items.len(), one.more == More::No), (1, false));
    let last = key(run, SCAN_ITEMS_MAX);
    run.put(&last, "");
    let first = run.page(scan).expect("a page");
    assert!(matches!(first.more, More::Yes(_)), "{:?}", first.more);
    assert_eq!(first.items, whole.items);
}

fn long_values(run: &mut Run<'_>) {
    let value = vec![b'v'; SCAN_BYTES_MAX * 2 / 5];
    for n in 0..5 {
        let key = run.key(n.to_string());
        run.put(&key, &value);
    }
    let space = run.key("");
    let scan = Scan { prefix: &space, ..Scan::default() };
    assert_eq!(run.pages(scan), [vec!["0", "1"], vec!["2", "3"], vec!["4"]]);
    let key = run.key("1");
    run.put(&key, vec![b'l'; SCAN_BYTES_MAX * 5]);
    assert_eq!(run.pages(scan).concat(), ["0", "1", "2", "3", "4"]);
    let (alone, behind) = (Scan { prefix: &key, ..scan }, Scan { start: &key, ..scan });
    assert_eq!(run.pages(alone), [["1"]], "a page holds at least one item");
    assert_eq!(run.pages(behind)[0], ["1"]);
}

fn moving(run: &mut Run<'_>) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| run.key(name));
    run.put(&a, "");
    run.put(&b, "");
    run.put(&d, "");
    let space = run.key("");
    let scan = Scan { prefix: &space, limit: 2, ..Scan::default() };
    let first = run.page(scan).expect("a page");
    let (More::Yes(cursor) | More::Untold(cursor)) = first.more else { panic!("there is another") };
    assert_eq!(run.delete_if(&b, Condition::None), Ok(true));
    run.put(&c, "");
    let rest = run.page(Scan { cursor: &cursor, limit: 0, ..scan }).expect("a page");
    assert_eq!(rest.items.iter().map(|item| &item.key).collect::<Vec<_>>(), [&c, &d]);
    assert_eq!(rest.more, More::No);
}

fn nothing(run: &mut Run<'_>) {
    let space = run.key("");
    for reverse in [false, true] {
        for limit in [0, 1] {
            let page = run.page(Scan { prefix: &space, reverse, limit, ..Scan::default() }).expect("a page");
            assert_eq!((page.items, page.more), (Vec::new(), More::No));
        }
    }
    assert_eq!(run.get(&space), Err(Code::NotFound));
}
