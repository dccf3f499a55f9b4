use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_channel::bounded;

use super::logging::{Item, queue, write_lines};

// museum 25
#[test]
fn logging_never_waits_for_a_reader() {
    let (mut queue, items) = queue(2);
    let dropped = Arc::clone(&queue.dropped);
    for line in ["one\n", "two\n", "three\n", "four\n"] {
        queue.write_all(line.as_bytes()).expect("always works");
    }
    drop(queue);
    let mut out = Vec::new();
    write_lines(&items, &dropped, &mut out);
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text, "2 lines were not logged, as stderr was not read\none\ntwo\n");
}

#[test]
fn a_flush_waits_for_the_lines_before_it() {
    let (queue, items) = queue(8);
    let (done, written) = bounded(0);
    queue.push(b"one\n");
    queue.items.send(Item::Flush(done)).expect("has room");
    assert!(written.try_recv().is_err_and(|error| error.is_empty()));
    drop(queue);
    let mut out = Vec::new();
    write_lines(&items, &AtomicU64::new(0), &mut out);
    assert!(written.try_recv().is_err_and(|error| error.is_disconnected()));
    assert_eq!(out, b"one\n");
}
