use raftkv_protocol::health::Verdict;

use super::node::why_not_served;

#[test]
fn of_a_replica_that_does_not_serve_it_is_told_what_is_wrong_with_it() {
    for (verdict, said) in [
        (Verdict::Diverged, "another than that of the majority"),
        (Verdict::Undecided, "no majority has the same"),
        (Verdict::Corrupt, "memory"),
    ] {
        assert!(why_not_served(verdict).contains(said), "{verdict:?}: {}", why_not_served(verdict));
    }
}
