//! What is answered while the disk hangs.

use std::time::{Duration, Instant};

use crate::support::cluster::Cluster;
use crate::support::http::{Http, Response, http, request};
use crate::support::metrics::Page;
use crate::support::tools::{have_strace, server_with_fault};
use crate::support::wait::{PATIENCE, eventually};
use crate::support::wire::put;

/// A tracer does not let go of a killed process sooner either.
const HANG: Duration = Duration::from_secs(5);

/// Syncs that a thread of their own makes.
const BY_THREAD: [&str; 2] = ["--log-io=map", "--log-sync=thread"];

/// A node alone of which each sync takes so long, once it is up. `None` where there is no strace.
fn alone(test: &str, flags: &[&str], hang: Duration) -> Option<Cluster> {
    if !have_strace(test) {
        return None;
    }
    let mut cluster = Cluster::of(1).flags(flags).idle();
    let faulty = server_with_fault("fdatasync", &format!("delay_enter={}:when=100+", hang.as_micros()));
    cluster.spawn_with(1, faulty).await_listening();
    Some(cluster)
}

/// Whoever restarts what does not answer must not restart a node for a disk that hangs: that helps nobody.
#[test]
fn probes_are_answered_while_the_disk_hangs() {
    let test = "probes_are_answered_while_the_disk_hangs";
    let Some(cluster) = alone(test, &BY_THREAD, HANG) else { return };
    let (mut wire, mut kept) = (cluster.wire(1), http(&cluster, 1));
    let mut probes_while_hung = 0;
    eventually(PATIENCE, "a sync hangs", || {
        wire.submit(put(b"k", b"v")).expect("sent");
        let hung = Page::of(&cluster, 1).sum("raftkv_log_sync_pending_seconds", &[]) > 0.5;
        for http in [&mut kept, &mut http(&cluster, 1)] {
            let asked = Instant::now();
            assert_eq!(http.ask("GET", "/livez", &[], b"").status, 200);
            let ready = http.ask("GET", "/readyz", &[], b"").status;
            assert!([200, 503].contains(&ready), "{ready}");
            assert!(asked.elapsed() < Duration::from_secs(1), "the probes took {:?}", asked.elapsed());
        }
        probes_while_hung += u32::from(hung);
        (probes_while_hung == 10).then_some(())
    });
}

/// One of two cores waits for its disk on its own loop.
#[test]
fn a_node_whose_loop_does_not_turn_is_not_live() {
    // Counted by thread: the core of the key comes to that, the other one does not.
    let test = "a_node_whose_loop_does_not_turn_is_not_live";
    let Some(cluster) = alone(test, &["--cores=2", "--log-io=map", "--log-sync=inline"], 2 * HANG) else { return };
    // Some of them are with the other core.
    let mut all: Vec<Http> = (0..16).map(|_| http(&cluster, 1)).collect();
    all.iter_mut().for_each(|http| assert_eq!(http.ask("GET", "/livez", &[], b"").text(), "ok\n"));
    let mut wire = cluster.wire(1);
    let told = eventually(PATIENCE, "one tells of the other", || {
        wire.submit(put(b"k", b"v")).expect("sent");
        // Whoever does not answer at once waits for the disk, too, and is asked no more.
        let probe = request("GET", "/livez?verbose", &[], b"");
        all.retain_mut(|http| http.try_send(&probe) && http.answers_within(HANG / 20));
        let told: Vec<Response> = all.iter_mut().map(|http| http.response(false).expect("a response")).collect();
        told.into_iter().find(|response| response.status == 503)
    });
    let checks: Vec<&str> = told.text().lines().filter(|line| line.contains("/turns")).collect();
    let hanging: Vec<&&str> = checks.iter().filter(|line| line.starts_with("[-] ")).collect();
    assert_eq!((checks.len(), hanging.len()), (2, 1), "{}", told.text());
    assert!(hanging[0].contains("the event loop has not turned for "), "{hanging:?}");
}

#[test]
fn a_scrape_is_answered_while_the_disk_hangs() {
    let test = "a_scrape_is_answered_while_the_disk_hangs";
    let Some(cluster) = alone(test, &BY_THREAD, HANG) else { return };
    let mut wire = cluster.wire(1);
    let hung = eventually(PATIENCE, "a sync hangs", || {
        wire.submit(put(b"k", b"v")).expect("sent");
        let asked = Instant::now();
        let page = Page::of(&cluster, 1);
        assert!(asked.elapsed() < Duration::from_secs(1), "a scrape took {:?}", asked.elapsed());
        (page.sum("raftkv_log_sync_pending_seconds", &[]) > 1.0).then_some(page)
    });
    assert_eq!(hung.sum("raftkv_disk_state", &[("state", "slow")]), 1.0);
    assert!(hung.sum("raftkv_log_backlog_bytes", &[]) > 0.0);
    assert!(hung.sum("raftkv_shard_proposals_pending_bytes", &[]) > 0.0);
}
