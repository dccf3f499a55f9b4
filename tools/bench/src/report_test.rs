use crate::process::Usage;
use crate::report::{Report, Setup, readable_us};
use crate::tally::{Fault, Tally};

fn setup(rate: Option<u64>) -> Setup {
    let (target, workload) = ("raftkv".into(), "get".into());
    let (conns, inflight, key_size, value_size, keys) = (64, 4, 16, 128, 100_000);
    Setup { target, workload, conns, inflight, key_size, value_size, keys, rate, warmup_s: 1.0 }
}

fn usage(cpu_s: f64, rss_bytes: u64) -> Usage {
    Usage { cpu_s, rss_bytes, rss_anon_bytes: rss_bytes / 2 }
}

fn tally() -> Tally {
    let mut tally = Tally::default();
    for latency_us in 1..=1_000 {
        tally.answered(latency_us * 1_000);
    }
    tally.failed(Fault::Refused("not_leader"), 2);
    tally.failed(Fault::NoReply, 1);
    tally.failed(Fault::Garbled, 0);
    tally
}

#[test]
fn the_json_line_has_every_field() {
    let report = Report {
        setup: setup(Some(500)),
        tally: tally(),
        measured_s: 2.0,
        elections: Some(0),
        servers: Some((usage(1.0, 1_000), usage(1.5, 4_000))),
        client: (usage(0.25, 0), usage(0.5, 0)),
        syncs: Some((100, 350)),
    };
    assert_eq!(
        report.json(),
        "{\"workload\": \"get\", \"target\": \"raftkv\", \"conns\": 64, \"inflight\": 4, \"key_size\": 16, \
         \"value_size\": 128, \"keys\": 100000, \"rate\": 500, \"duration_s\": 2, \"warmup_s\": 1, \"ops\": 1000, \
         \"ops_per_s\": 500, \"errors\": 3, \"errors_by\": {\"no_reply\": 1, \"not_leader\": 2}, \"latency_us\": \
         {\"p50\": 500.223, \"p90\": 900.095, \"p99\": 990.207, \"p999\": 999.423, \"max\": 1000.447}, \"elections\": 0, \
         \"server_cpu_s\": 0.5, \"cpu_us_per_op\": 500, \"server_rss_bytes\": 4000, \"server_rss_anon_bytes\": 2000, \
         \"server_rss_anon_growth_bytes\": 1500, \"log_syncs\": 250, \"log_syncs_per_op\": 0.25, \
         \"client_cpu_s\": 0.25, \"client_cpu_us_per_op\": 250}"
    );
}

#[test]
fn what_is_not_known_is_null() {
    let client = (usage(0.0, 0), usage(0.0, 0));
    let report = Report {
        setup: setup(None),
        tally: Tally::default(),
        measured_s: 0.0,
        elections: None,
        servers: None,
        client,
        syncs: None,
    };
    let json = report.json();
    for part in [
        "\"rate\": null",
        "\"server_cpu_s\": null",
        "\"cpu_us_per_op\": null",
        "\"log_syncs_per_op\": null",
        "\"ops_per_s\": 0",
    ] {
        assert!(json.contains(part), "{part} is not in {json}");
    }
    assert!(report.table().contains("errors      none"));
}

#[test]
fn the_table_names_every_kind_of_error() {
    let client = (usage(0.0, 0), usage(1.0, 0));
    let table = Report {
        setup: setup(None),
        tally: tally(),
        measured_s: 2.0,
        elections: None,
        servers: None,
        client,
        syncs: None,
    }
    .table();
    assert!(table.contains("throughput  500 ops/s (1000 ops)"), "{table}");
    assert!(table.contains("errors      3 (no_reply 1, not_leader 2)"), "{table}");
}

#[test]
fn latencies_are_given_in_the_unit_that_reads_best() {
    assert_eq!(readable_us(999.0), "999 us");
    assert_eq!(readable_us(1_500.0), "1.50 ms");
    assert_eq!(readable_us(2_000_000.0), "2.00 s");
}

#[test]
fn tallies_add_up_and_start_over() {
    let mut sum = tally();
    sum.add(&tally());
    assert_eq!((sum.ops(), sum.fault_count()), (2_000, 6));
    sum.clear();
    assert_eq!((sum.ops(), sum.fault_count()), (0, 0));
}
