//! Faults of all kinds in random order. One seed is one order of faults: `RAFTKV_CHAOS_SEED` repeats it, and
//! `RAFTKV_CHAOS_FAULTS` makes it longer.

use std::env;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::counters::count_through;
use crate::support::cluster::Cluster;
use crate::support::history::Writers;
use crate::support::wait::pause;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// One fault and its end.
fn strike(cluster: &mut Cluster, random: &mut Random) -> String {
    let id = random.pick(&cluster.ids());
    let other = random.pick(&cluster.ids());
    let length = Duration::from_millis(random.pick(&[10, 100, 600, 1_200]));
    match random.below(8) {
        0 | 1 => {
            cluster.kill_9(id);
            pause(length);
            format!("node {id} killed for {length:?}")
        }
        2 => {
            cluster.kill_9(id);
            if other != id {
                cluster.kill_9(other);
            }
            pause(length);
            format!("nodes {id} and {other} killed for {length:?}")
        }
        3 => {
            cluster.kill_all();
            "all nodes killed".to_owned()
        }
        4 => {
            let ended = cluster.stop(id);
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            pause(length);
            format!("node {id} stopped for {length:?}")
        }
        5 | 6 => {
            cluster.process(id).pause();
            pause(length);
            cluster.process(id).resume();
            format!("node {id} paused for {length:?}")
        }
        _ => {
            cluster.process(id).pause();
            cluster.process(other).pause();
            pause(length);
            cluster.process(id).resume();
            if random.below(2) == 0 {
                cluster.kill_9(other);
                return format!("nodes {id} and {other} paused for {length:?}, {other} killed then");
            }
            cluster.process(other).resume();
            format!("nodes {id} and {other} paused for {length:?}")
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_repeated_whatever_happens() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let seed = setting("RAFTKV_CHAOS_SEED").unwrap_or(clock.as_nanos() as u64);
    let faults: u32 = setting("RAFTKV_CHAOS_FAULTS").unwrap_or(12);
    println!("RAFTKV_CHAOS_SEED={seed}");
    let mut random = Random(seed);
    let cores = format!("--cores={}", random.pick(&[1, 2, 3]));
    let segments = format!("--segment-size={}", random.pick(&["64KiB", "1MiB"]));
    let nodes = random.pick(&[3, 3, 5]);
    let mut cluster = Cluster::of(nodes).flag(&cores).flag(&segments).start();
    println!("{nodes} nodes, {cores} {segments}");
    count_through(&mut cluster, 3, |cluster, await_progress| {
        let writers = Writers::start(cluster, "key", 2, 8);
        for fault in 0..faults {
            let story = strike(cluster, &mut random);
            println!("fault {fault}: {story}");
            cluster.restart_all();
            await_progress();
            writers.await_progress(20);
        }
        let history = writers.stop();
        history.check(cluster, &cluster.ids());
    });
    cluster.await_convergence();
}
