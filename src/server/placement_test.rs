//! Who gets leadership back.

use std::time::{Duration, Instant};

use raftkv_protocol::types::{Index, NodeId};

use super::placement::{STEADY, Trust, steady_since};
use super::router_test::{Cluster, key_of};

/// Looks at whether node 2 keeps up with shard 0, which node 1 leads.
fn look(cluster: &Cluster, before: Option<(Instant, Index)>) -> Option<(Instant, Index)> {
    steady_since(&cluster.nodes[0].0.shards()[0], NodeId(2), before, cluster.now)
}

/// One more write and one more second.
fn pass(cluster: &mut Cluster) {
    cluster.put(1, 1, &key_of(0, 0));
    cluster.run(Duration::from_secs(1));
}

// rule 30
#[test]
fn a_node_is_steady_since_it_has_kept_up_without_a_break() {
    let mut cluster = Cluster::with_leaders();
    let begun = cluster.now;
    let mut steady = look(&cluster, None);
    for _ in 0..3 {
        pass(&mut cluster);
        steady = look(&cluster, steady);
        assert_eq!(steady.map(|(since, _)| since), Some(begun));
    }
    // A second without it, and it begins anew.
    cluster.link_down(1, 2);
    pass(&mut cluster);
    steady = look(&cluster, steady);
    pass(&mut cluster);
    steady = look(&cluster, steady);
    let (lost, now) = (steady.map(|(since, _)| since), cluster.now);
    assert_eq!(lost, Some(now), "it lacks what was committed at the look before");
    cluster.link_up(1, 2);
    cluster.run(Duration::from_secs(1));
    steady = look(&cluster, steady);
    assert_eq!(steady.map(|(since, _)| since), Some(now));
    let follows = &cluster.nodes[2].0.shards()[0];
    assert_eq!(steady_since(follows, NodeId(2), steady, cluster.now), None, "only a leader knows who keeps up");
}

/// A node that this one reaches and the others do not gets leadership, cannot keep it, and gets it ever more rarely.
#[test]
fn who_cannot_keep_leadership_waits_longer_for_it_each_time() {
    let mut trust = Trust::default();
    let mut now = Instant::now();
    trust.leads_here(now);
    assert_eq!(trust.wait(), STEADY, "nothing was given");
    let mut waits = Vec::new();
    for _ in 0..9 {
        trust.give(now);
        now += Duration::from_secs(2);
        trust.leads_here(now);
        trust.leads_here(now);
        waits.push(trust.wait().as_secs());
    }
    assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600, 3_600]);
    trust.give(now);
    now += Duration::from_secs(601);
    trust.leads_here(now);
    assert_eq!(trust.wait(), STEADY, "it kept leadership for long");
}
