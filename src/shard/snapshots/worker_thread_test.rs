//! A worker on a thread of its own: when it rests, and when not.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use raftkv_protocol::peer::SnapshotMeta;
use raftkv_protocol::types::{EntryId, SnapshotId};

use super::worker_test::{PIECE, SHARD, grow, state_of, stores, take};
use super::{Done, Job, Pace, PieceFor, SnapshotWorker, Snapshots, snapshot_worker};
use crate::storage::simulated_disk::SimulatedDisk;

/// Moves a worker at the pace that is asked for, by one thread instead of two.
fn run(worker: SnapshotWorker) {
    let mut worker = Some(worker);
    for pace in [Pace::Steady, Pace::Hurried].into_iter().cycle() {
        worker = worker.and_then(|worker| worker.run(pace));
        if worker.is_none() {
            return;
        }
    }
}

/// A worker on a thread of its own.
struct Running {
    loop_end: Snapshots,
    wakes: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Running {
    fn at_rate(rate: u64) -> Running {
        let disk = SimulatedDisk::new(1);
        let (woken, wakes) = unbounded();
        let wake = Arc::new(move || woken.send(()).expect("the test listens"));
        let (loop_end, worker) = snapshot_worker(stores(&disk), vec![1, 2, 3], rate, wake);
        Running { loop_end, wakes, thread: thread::spawn(|| run(worker)) }
    }

    #[track_caller]
    fn next(&self) -> Done {
        self.wakes.recv_timeout(Duration::from_secs(20)).expect("it goes on");
        self.loop_end.done().expect("something is done")
    }

    #[track_caller]
    fn expect_rest(&self) {
        assert!(self.wakes.recv_timeout(Duration::from_millis(50)).is_err(), "it has more than one step to do");
    }

    /// A piece of a snapshot that is not there is asked for.
    fn send_read(&self) {
        let (piece_for, id) = (PieceFor(9), SnapshotId(9));
        self.loop_end.send(Job::Read { piece_for, shard: SHARD, id, offset: 0, length_max: PIECE });
    }

    /// Waits for a snapshot, and asks for pieces of others meanwhile.
    fn until_taken(&self) {
        for _ in 0..2_000 {
            match self.wakes.recv_timeout(Duration::from_millis(10)) {
                Err(_) => self.send_read(),
                Ok(()) if matches!(self.loop_end.done(), Some(Done::Taken { .. })) => return,
                Ok(()) => {}
            }
        }
        panic!("it is not taken");
    }

    fn end(self) {
        drop(self.loop_end);
        self.thread.join().expect("it ends with its loop");
    }
}

#[test]
fn a_thread_rests_after_each_step_of_writing_unless_the_log_waits() {
    // At a byte a second it rests for days.
    let running = Running::at_rate(1);
    running.loop_end.send(take(&state_of(1_000, 1_000)));
    running.expect_rest();
    running.send_read();
    assert!(matches!(running.next(), Done::Piece { .. }), "who asks does not wait for the rest to end");
    running.expect_rest();
    running.loop_end.hurry(true);
    assert!(matches!(running.next(), Done::Taken { shard: SHARD, .. }), "it rests no more");
    running.end();
}

#[test]
fn other_long_jobs_neither_wait_for_a_thread_that_rests_nor_end_its_rest() {
    let running = Running::at_rate(1);
    running.loop_end.send(take(&state_of(400, 1_000)));
    running.expect_rest();
    let meta = SnapshotMeta { id: SnapshotId(7), at: EntryId::new(1_000, 1), bytes: 100 };
    running.loop_end.send(Job::Receive { shard: SHARD, meta });
    assert!(matches!(running.next(), Done::Received { shard: SHARD, upto: 0, .. }));
    running.expect_rest();
    running.end();
}

/// A step takes at least one value, however long it is; and whoever asks for pieces all the time does not shorten the rest.
#[test]
fn a_thread_writes_no_more_in_a_second_than_it_may() {
    let running = Running::at_rate(1 << 20);
    let mut state = state_of(3, 1 << 20);
    let begun = Instant::now();
    running.loop_end.send(take(&state));
    running.until_taken();
    // It does not rest before the first step.
    assert!(begun.elapsed() >= Duration::from_secs(2), "2 MiB in {:?}", begun.elapsed());
    // Of what comes next it rests before the first step, too.
    grow(&mut state, 0..1, b"short");
    running.loop_end.send(take(&state));
    running.until_taken();
    assert!(begun.elapsed() >= Duration::from_secs(3), "3 MiB in {:?}", begun.elapsed());
    running.end();
}

/// More jobs than there are boxes for, and than the channel has room for: all are done, in order.
#[test]
fn jobs_that_find_no_room_wait_and_stay_in_order() {
    const JOBS: u64 = 3_000;
    let running = Running::at_rate(1);
    for number in 0..JOBS {
        let (piece_for, id) = (PieceFor(number), SnapshotId(9));
        running.loop_end.send(Job::Read { piece_for, shard: SHARD, id, offset: 0, length_max: PIECE });
    }
    for number in 0..JOBS {
        let done = running.next();
        assert!(matches!(done, Done::Piece { piece_for: PieceFor(of), .. } if of == number), "{number}: {done:?}");
    }
    running.end();
}
