use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command, parse_duration};

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn durations_have_units() {
    assert_eq!(parse_duration("20s"), Ok(Duration::from_secs(20)));
    assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1_500)));
    assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    assert!(parse_duration("2h").is_err());
    assert!(parse_duration("-1s").is_err());
    assert!(parse_duration("s").is_err());
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let refused = |flags: &[&str]| Cli::try_parse_from([&["raftkv-bench"], flags].concat()).is_err();
    assert!(refused(&["--conns", "0"]));
    assert!(refused(&["--read-ratio", "1.1"]));
    assert!(refused(&["--workload", "delete"]));
    assert!(refused(&["--value-size", "1048577"]));
    assert!(refused(&["null-server", "--cluster", "1:127.0.0.1:1"]));
    assert!(!refused(&["--conns", "256", "--inflight", "4", "--pids", "1,2,3"]));
}

#[test]
fn server_flags_of_the_failover_follow_a_double_dash() {
    let cli = Cli::parse_from(["raftkv-bench", "failover", "--trials", "3", "--", "--cores", "1"]);
    let Some(Command::Failover(failover)) = cli.command else { panic!("{cli:?}") };
    assert_eq!(failover.server_flags, ["--cores", "1"]);
}
