use signal_hook::consts::{SIGHUP, SIGINT};

use crate::signals::ignores;

#[test]
fn the_mask_of_ignored_signals_counts_from_one() {
    let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000000000\n";
    assert!(ignores(status, SIGHUP));
    assert!(!ignores(status, SIGINT));
    assert!(!ignores("Name:\tx\n", SIGHUP));
}
