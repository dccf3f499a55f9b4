use raftkv_protocol::types::Term;

use super::seen::Seen;

fn with_two_entries() -> Seen {
    Seen { persisted: vec![Term(1), Term(2)], ..Seen::default() }
}

#[test]
fn what_a_disk_has_lost_counts_until_it_is_back() {
    let mut seen = with_two_entries();
    assert_eq!(seen.loses(), [Term(1), Term(2)]);
    seen.ends();
    assert!(seen.has_had(2, Term(2)) && !seen.has_had(2, Term(1)) && !seen.has_had(3, Term(2)));
    seen.regains();
    assert!(!seen.has_had(2, Term(2)));
}

/// A leader may hear of it when the disk has lost it already.
#[test]
fn what_a_disk_got_in_a_last_turn_counts_also_when_it_loses_it_before_anybody_has_looked() {
    let mut seen = with_two_entries();
    seen.unseen = true;
    seen.ends();
    seen.loses();
    // As the first look at the next process does.
    seen.unseen = false;
    assert!(seen.has_had(3, Term(2)));
    seen.ends();
    assert!(seen.has_had(3, Term(2)));
    seen.regains();
    assert!(!seen.has_had(3, Term(2)));
}
