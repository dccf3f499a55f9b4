//! A whole RaftKV cluster in one thread, with simulated clock, network and disks.
