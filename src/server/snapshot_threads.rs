//! The two threads that move a core's snapshot worker.

use std::io;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use raftkv_protocol::types::CoreId;
use rustix::process::setpriority_process;

use crate::shard::snapshots::{Pace, SnapshotWorker};

/// The priority of the steady one: the lowest.
const NICE: i32 = 19;

/// Snapshots may wait for everything else, until the log waits for them: then the worker goes to a thread that has the
/// priority of all others. It would starve for good beside busy ones, and a thread that has lowered its priority may not
/// raise it again.
pub(super) fn start(core: CoreId, worker: SnapshotWorker) -> io::Result<()> {
    let (to_steady, steady) = bounded(1);
    let (to_hurried, hurried) = bounded(1);
    // The other end is here, and there is room for one.
    let _ = to_steady.send(worker);
    let body = move || {
        // Of this thread: on Linux each has its own.
        if let Err(error) = setpriority_process(None, NICE) {
            log::debug!("cannot lower the priority of a thread: {error}");
        }
        work(Pace::Steady, &steady, &to_hurried);
    };
    thread::Builder::new().name(format!("snapshots-{core}")).spawn(body)?;
    let body = move || work(Pace::Hurried, &hurried, &to_steady);
    thread::Builder::new().name(format!("hurried-{core}")).spawn(body)?;
    Ok(())
}

/// Moves the worker while this is its pace. Both threads end with its loop.
fn work(pace: Pace, own: &Receiver<SnapshotWorker>, other: &Sender<SnapshotWorker>) {
    for worker in own {
        let Some(worker) = worker.run(pace) else { return };
        if other.send(worker).is_err() {
            return;
        }
    }
}
