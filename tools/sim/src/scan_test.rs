use raftkv::client::{Item, Page};
use raftkv_protocol::types::Index;

use super::scan::{Scan, Wish};

fn page(keys: &[&str], has_more: bool) -> Page {
    let item = |key: &&str| Item { key: key.as_bytes().to_vec(), version: Index(1), value: Vec::new() };
    let items: Vec<Item> = keys.iter().map(item).collect();
    let cursor = items.last().filter(|_| has_more).map(|item| item.key.clone());
    Page { items, cursor }
}

fn from_b_to_y() -> Wish {
    Wish { start: b"b".to_vec(), end: b"y".to_vec(), limit: 3, pages_max: 9, ..Wish::default() }
}

/// What is said of the page, if it is not right.
fn complaint(scan: &Scan, page: &Page) -> Option<String> {
    let violation = scan.check(page).err()?;
    Some(violation.what.split(':').next().unwrap_or_default().to_owned())
}

fn second_page(wish: Wish, first: &Page) -> Scan {
    Scan::of(wish).next(first).expect("there is more")
}

#[test]
fn a_page_is_in_order_and_in_range() {
    let scan = Scan::of(from_b_to_y());
    assert_eq!(complaint(&scan, &page(&["b", "x"], false)), None);
    assert_eq!(complaint(&scan, &page(&[], false)), None);
    assert_eq!(complaint(&scan, &page(&["a", "x"], false)).as_deref(), Some("a key is out of range"));
    assert_eq!(complaint(&scan, &page(&["b", "y"], false)).as_deref(), Some("a key is out of range"));
    let wrong = "a key is out of order, or is shown twice";
    assert_eq!(complaint(&scan, &page(&["c", "b"], false)).as_deref(), Some(wrong));
    assert_eq!(complaint(&scan, &page(&["c", "c"], false)).as_deref(), Some(wrong));
    assert_eq!(complaint(&scan, &page(&["b", "c", "d", "e"], true)).as_deref(), Some("there are too many items"));
    let reverse = Scan::of(Wish { reverse: true, ..from_b_to_y() });
    assert_eq!(complaint(&reverse, &page(&["x", "b"], false)), None);
    assert_eq!(complaint(&reverse, &page(&["b", "x"], false)).as_deref(), Some(wrong));
    let with_prefix = Scan::of(Wish { prefix: b"b/".to_vec(), ..Wish::default() });
    assert_eq!(complaint(&with_prefix, &page(&["b/1", "b0"], false)).as_deref(), Some("a key is out of range"));
}

#[test]
fn a_page_goes_on_behind_the_one_before() {
    let wrong = "a key is out of order, or is shown twice";
    let forward = second_page(from_b_to_y(), &page(&["b", "d"], true));
    assert_eq!(complaint(&forward, &page(&["e"], false)), None);
    assert_eq!(complaint(&forward, &page(&["d", "e"], false)).as_deref(), Some(wrong));
    assert_eq!(complaint(&forward, &page(&["c"], false)).as_deref(), Some(wrong));
    let reverse = second_page(Wish { reverse: true, ..from_b_to_y() }, &page(&["x", "d"], true));
    assert_eq!(complaint(&reverse, &page(&["c", "b"], false)), None);
    assert_eq!(complaint(&reverse, &page(&["d"], false)).as_deref(), Some(wrong));
    let mut elsewhere = page(&["e", "f"], true);
    elsewhere.cursor = Some(b"e".to_vec());
    assert!(complaint(&forward, &elsewhere).is_some_and(|what| what.starts_with("the next page")));
    let endless = Page { items: Vec::new(), cursor: Some(b"d".to_vec()) };
    assert!(complaint(&forward, &endless).is_some_and(|what| what.starts_with("the next page")));
}

#[test]
fn a_scan_ends_where_there_is_no_more_or_the_client_has_seen_enough() {
    assert_eq!(Scan::of(from_b_to_y()).next(&page(&["c"], false)), None);
    let two_pages = second_page(Wish { pages_max: 2, ..from_b_to_y() }, &page(&["c"], true));
    assert_eq!(two_pages.next(&page(&["d"], true)), None);
}

#[test]
fn a_page_tells_of_the_keys_between_its_cursors() {
    let covered = |scan: &Scan, page: &Page| -> Vec<&str> {
        let keys = ["a", "b", "c", "d", "e", "f", "x", "y"];
        keys.into_iter().filter(|key| scan.covers(page, key.as_bytes())).collect()
    };
    let first = page(&["c", "d"], true);
    assert_eq!(covered(&Scan::of(from_b_to_y()), &first), ["b", "c", "d"]);
    let second = second_page(from_b_to_y(), &first);
    assert_eq!(covered(&second, &page(&["f"], true)), ["e", "f"]);
    assert_eq!(covered(&second, &page(&["e"], false)), ["e", "f", "x"]);
    assert_eq!(covered(&second, &page(&[], false)), ["e", "f", "x"]);
    let backwards = Wish { reverse: true, ..from_b_to_y() };
    let first = page(&["f", "e"], true);
    assert_eq!(covered(&Scan::of(backwards.clone()), &first), ["e", "f", "x"]);
    assert_eq!(covered(&second_page(backwards, &first), &page(&[], false)), ["b", "c", "d"]);
}
