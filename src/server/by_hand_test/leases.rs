//! What a read by a lease is judged by: a clock that was read after the request.

use std::time::Duration;

use raftkv_protocol::types::{CoreId, ShardId};

use super::cluster::{Cluster, address};
use super::{gray, key_of, replica, write};
use crate::raft::LeaseCounts;
use crate::socket::Socket;

const LEASE: Duration = Duration::from_millis(500);
/// Core 0 of node 1 leads it, where all who dial that node land.
const SHARD: ShardId = ShardId(0);

/// What comes of a read over HTTP by the lease of a leader that stands still for longer than that lasts, just before the clock is
/// read for the time of this number in the turn that reads the request, counted from 0. The lease is held before.
fn asked_while_standing_still(reading: usize) -> LeaseCounts {
    let mut cluster = Cluster::with_leases(91, LEASE);
    cluster.run_until("node 1 leads", |cluster| gray::leader(cluster, SHARD) == 1);
    write(&mut cluster, 1, &key_of(SHARD), b"value");
    let socket = cluster.wires.connect_http(address(200), address(1)).expect("the node listens");
    cluster.run(Duration::from_secs(2));
    let now = cluster.now;
    let holds = |cluster: &Cluster| replica(cluster, 1, SHARD).raft().holds_lease(cluster.now);
    assert!(holds(&cluster));
    let key = String::from_utf8(key_of(SHARD)).expect("text");
    let request = format!("GET /v1/kv/{key}?consistency=lease HTTP/1.1\r\nHost: node\r\n\r\n");
    assert_eq!(socket.write(request.as_bytes()).ok(), Some(request.len()));
    let times: Vec<_> = (0..6).map(|at| if at < reading { now } else { now + LEASE }).collect();
    cluster.turn_pausing(1, CoreId(0), &times);
    assert!(!holds(&cluster), "it has run out");
    replica(&cluster, 1, SHARD).raft().lease_counts()
}

// rule 6
#[test]
fn a_read_over_http_by_a_lease_is_judged_by_the_time_after_http_was_read() {
    // museum 23
    for reading in 0..3 {
        let counts = asked_while_standing_still(reading);
        assert_eq!((counts.served, counts.fallen_back), (0, 1), "it stood still before reading {reading}");
    }
    // The fourth reading is that of the turn's end: the answer is on its way by then.
    let counts = asked_while_standing_still(3);
    assert_eq!((counts.served, counts.fallen_back), (1, 0));
}
