use crate::process::{Resident, Usage, parse_bytes, parse_cpu_s, parse_written, written_bytes};

#[test]
fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
    let ticks = rustix::param::clock_ticks_per_second();
    let stat = format!("42 (a) b) (c) S 1 42 42 0 -1 4194560 1 0 0 0 {} {} 9 9 20 0 3 0 1 2 3", ticks, 2 * ticks);
    assert_eq!(parse_cpu_s(&stat), Some(3.0));
    assert_eq!(parse_cpu_s("42 (x) S 1"), None);
}

#[test]
fn memory_is_given_in_bytes() {
    let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t     512 kB\n";
    assert_eq!(parse_bytes(status, "VmRSS:"), Some(2 << 20));
    assert_eq!(parse_bytes(status, "RssAnon:"), Some(512 << 10));
    assert_eq!(parse_bytes(status, "VmSwap:"), None);
}

#[test]
fn a_process_that_does_not_exist_is_named() {
    assert!(Usage::of(&[std::process::id()]).unwrap().rss_bytes > 0);
    // Above the kernel's largest possible pid.
    assert!(Usage::of(&[4_194_305]).unwrap_err().contains("4194305"));
}

#[test]
fn bytes_written_are_those_of_the_storage_layer() {
    let io = "rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 5\n";
    assert_eq!(parse_written(io), Some(4096));
    assert_eq!(parse_written("cancelled_write_bytes: 5\n"), None);
}

#[test]
fn this_process_has_memory_and_a_peak() {
    let memory = Resident::of(std::process::id()).unwrap();
    assert!(memory.anon_bytes > 0 && memory.anon_bytes <= memory.rss_bytes, "{memory:?}");
    assert!(memory.peak_bytes > 0, "{memory:?}");
    written_bytes(std::process::id()).unwrap();
}
