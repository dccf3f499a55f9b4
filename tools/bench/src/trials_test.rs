use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Parser;
use raftkv_protocol::client::{ShardStatus, Status};
use raftkv_protocol::types::{EntryId, Index, NodeId, Term};

use crate::args::{Cli, Command};
use crate::trials::amplification::Written;
use crate::trials::args::{parse_count, parse_minutes, parse_size};
use crate::trials::catch_up::begins_behind;
use crate::trials::disk::{Births, Taken, cores, taken};
use crate::trials::figures::{
    committed, counter, entries_behind_snapshots, greatest, largest, median, ratio, record_bytes, stands_still, sum,
    tail_entry_bytes,
};
use crate::trials::overwrite::Bound;

fn status(node: u64, shards: &[(u64, u64, u64)], counters: &[(&str, u64)]) -> Status {
    let at = |index| EntryId { index: Index(index), term: Term(1) };
    let shard = |&(snapshot, commit, last): &(u64, u64, u64)| ShardStatus {
        snapshot: at(snapshot),
        commit: Index(commit),
        last: at(last),
        ..ShardStatus::default()
    };
    Status {
        node: NodeId(node),
        shards: shards.iter().map(shard).collect(),
        counters: counters.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        ..Status::default()
    }
}

#[test]
fn counts_sizes_and_minutes_have_units() {
    assert_eq!(parse_count("1M"), Ok(1_000_000));
    assert_eq!(parse_count("100k"), Ok(100_000));
    assert_eq!(parse_count("500"), Ok(500));
    for wrong in ["", "0", "M", "1G", "5000M", "-1", "1.5M"] {
        assert!(parse_count(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse_size("4096"), Ok(4096));
    assert_eq!(parse_size("64MiB"), Ok(64 << 20));
    assert_eq!(parse_size("3GiB"), Ok(3 << 30));
    for wrong in ["", "KiB", "1MB", "99999999999GiB"] {
        assert!(parse_size(wrong).is_err(), "{wrong}");
    }
    assert_eq!(parse_minutes("0.5"), Ok(0.5));
    for wrong in ["0", "-1", "inf", "NaN", "x"] {
        assert!(parse_minutes(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_trial_has_defaults_and_passes_flags_on() {
    for name in ["restart", "memory", "snapshots", "catch-up", "overwrite", "amplification"] {
        let cli = Cli::parse_from(["raftkv-bench", name, "--json", "--", "--cores", "1"]);
        let site = match cli.command.unwrap() {
            Command::Restart(args) => args.site,
            Command::Memory(args) => args.site,
            Command::Snapshots(args) => args.site,
            Command::CatchUp(args) => args.site,
            Command::Overwrite(args) => args.site,
            Command::Amplification(args) => args.site,
            other => panic!("{other:?}"),
        };
        assert!(site.json);
        assert_eq!(site.server_flags, ["--cores", "1"]);
    }
    assert!(Cli::try_parse_from(["raftkv-bench", "restart", "--trials", "0"]).is_err());
    assert!(Cli::try_parse_from(["raftkv-bench", "overwrite", "--minutes", "0"]).is_err());
}

#[test]
fn the_median_lies_in_the_middle() {
    assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
    assert_eq!((median(&[]), largest(&[])), (0.0, 0.0));
    assert_eq!(largest(&[1.0, 3.0, 2.0]), 3.0);
    assert_eq!((ratio(3.0, 2.0), ratio(3.0, 0.0)), (1.5, 0.0));
}

#[test]
fn memory_stands_still_within_a_hundredth() {
    assert!(stands_still(&[1_000, 990, 1_000]));
    assert!(!stands_still(&[1_000, 989]));
    assert!(!stands_still(&[]));
}

#[test]
fn counters_are_found_and_added_up() {
    let all = [status(1, &[], &[("snapshots_taken", 2)]), status(2, &[], &[("snapshots_taken", 3), ("turns", 9)])];
    assert_eq!(sum(&all, "snapshots_taken"), Ok(5));
    assert_eq!(counter(&all[0], "turns"), Err("node 1 counts no turns".into()));
    assert_eq!(greatest(&all, "snapshots_taken"), Ok(3));
    assert_eq!(greatest(&all, "turns"), Err("node 1 counts no turns".into()));
}

#[test]
fn what_is_committed_is_what_the_best_node_knows() {
    let all = [status(1, &[(4, 7, 9), (0, 1, 1)], &[]), status(2, &[(7, 8, 8), (1, 1, 2)], &[])];
    assert_eq!(committed(&all), [8, 1]);
    assert_eq!(entries_behind_snapshots(&all[0]), 6);
    assert_eq!(entries_behind_snapshots(&all[1]), 2);
}

#[test]
fn a_log_begins_with_the_older_of_two_snapshots() {
    assert!(begins_behind(&BTreeSet::from([5, 11, 12]), 10));
    assert!(!begins_behind(&BTreeSet::from([5, 10, 12]), 10));
    assert!(!begins_behind(&BTreeSet::from([12]), 10));
    assert!(!begins_behind(&BTreeSet::new(), 0));
}

/// 28 bytes of record, 4 of the command's head, 2 of the operation's, and a length of 4 bytes before key and value.
#[test]
fn a_record_is_its_parts() {
    assert_eq!(record_bytes(128), 28 + 4 + 2 + 4 + 16 + 4 + 128);
    assert_eq!(tail_entry_bytes(128), 64 + 4 + 2 + 4 + 16 + 4 + 128);
}

#[test]
fn the_bound_is_of_all_cores_and_what_lies_beside_the_logs() {
    let bound = Bound { cores: 2, core_log_bytes_max: 4 << 30, needed_bytes: 1 << 30, segment_bytes: 64 << 20 };
    assert_eq!(bound.bytes(), 2 * ((4 << 30) + 8 * (64 << 20)));
    // What the shards need goes before the setting: nobody can let go of half of it.
    assert_eq!(Bound { needed_bytes: 3 << 30, ..bound }.bytes(), 2 * ((6 << 30) + 8 * (64 << 20)));
    assert_eq!(Bound { core_log_bytes_max: u64::MAX, ..bound }.bytes(), u64::MAX);
}

#[test]
fn what_was_written_is_its_parts_and_a_rest() {
    let written = Written { disk: 100.0, records: 40.0, heads: 1.0, padding: 9.0, prefill: 20.0, snapshots: 25.0 };
    assert_eq!(written.rest(), 5.0);
}

fn write(dir: &Path, name: &str, bytes: usize) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![0; bytes]).unwrap();
}

#[test]
fn a_node_takes_the_bytes_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(taken(dir.path()), Taken::default());
    write(dir.path(), "logs/core-0/segment-1.log", 10);
    write(dir.path(), "logs/core-1/spare-1.log", 20);
    write(dir.path(), "snapshots/shard-0/snapshot-1-1.snap", 3);
    write(dir.path(), "LOCK", 99);
    assert_eq!(taken(dir.path()), Taken { logs: 30, snapshots: 3 });
    assert_eq!(cores(dir.path()), 2);
}

#[test]
fn a_segment_that_is_used_again_is_not_new() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "logs/core-0/segment-1.log", 10);
    write(dir.path(), "snapshots/shard-0/snapshot-1-1.snap", 3);
    let mut births = Births::since(dir.path());
    let log = dir.path().join("logs/core-0");
    fs::rename(log.join("segment-1.log"), log.join("spare-2.log")).unwrap();
    write(dir.path(), "logs/core-0/allocating-3.log", 7);
    births.look(dir.path());
    assert_eq!((births.segment_bytes(), births.snapshots()), (0, (0, 0)));
    fs::rename(log.join("allocating-3.log"), log.join("segment-3.log")).unwrap();
    write(dir.path(), "snapshots/shard-0/writing-2.snap", 5);
    write(dir.path(), "snapshots/shard-0/snapshot-2-1.snap", 4);
    births.look(dir.path());
    fs::remove_file(dir.path().join("snapshots/shard-0/snapshot-2-1.snap")).unwrap();
    births.look(dir.path());
    assert_eq!((births.segment_bytes(), births.snapshots()), (7, (1, 4)));
}
