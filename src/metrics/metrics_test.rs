use super::Counters;

#[test]
fn the_manual_names_every_counter() {
    let manual = include_str!("../../docs/operations.md");
    let status = manual.split("\n## ").find(|chapter| chapter.starts_with("Looking at a node: status\n"));
    let status = status.expect("a chapter");
    for (name, _) in Counters::default().named() {
        assert!(status.contains(&format!("`{name}`")), "{name} is not among the counters");
    }
}

#[test]
fn the_counters_of_cores_add_up() {
    let mut sum = Counters { requests: 1, log_syncs: 2, ..Counters::default() };
    sum.add(&Counters { requests: 10, timeouts: 3, ..Counters::default() });
    let named = sum.named();
    let value = |name: &str| named.iter().find(|(counter, _)| counter == name).map(|(_, value)| *value);
    assert_eq!(["requests", "log_syncs", "timeouts", "turns"].map(value), [Some(11), Some(2), Some(3), Some(0)]);
    assert!(named.is_sorted());
}
