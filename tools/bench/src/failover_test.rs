use raftkv_protocol::types::Slot;

use crate::failover::probe::one_key_each;
use crate::failover::quantile;

#[test]
fn quantiles_are_of_the_nearest_rank() {
    let sorted: Vec<f64> = (1..=20).map(f64::from).collect();
    assert_eq!(quantile(&sorted, 0.5), 10.0);
    assert_eq!(quantile(&sorted, 0.99), 20.0);
    assert_eq!(quantile(&sorted, 0.95), 19.0);
    assert_eq!(quantile(&sorted, 0.0), 1.0);
    assert_eq!(quantile(&[], 0.5), 0.0);
    assert_eq!(quantile(&[3.0], 1.0), 3.0);
}

#[test]
fn every_shard_is_probed_with_a_key_of_its_own() {
    let keys = one_key_each(12);
    assert_eq!(keys.keys().map(|shard| shard.0).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    for (shard, key) in keys {
        assert_eq!(Slot::of(&key).shard(12), shard);
    }
}
