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
