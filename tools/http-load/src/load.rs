//! The prefill and the load. Every connection and every request in flight is a future of one thread.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join_all, select};
use raftkv_bench::keys::KeySpace;
use raftkv_bench::meter::{Meter, Recorder};
use raftkv_bench::tally::Fault;
use tokio::time::sleep;

use crate::args::Load;
use crate::caller::{Caller, Failure, RETRY_PAUSE, connect};
use crate::link::Link;
use crate::plan::{Place, Plan};

/// How often the counts are posted, and how soon an interrupt is noticed.
const TICK: Duration = Duration::from_millis(200);

/// Writes every key once, with one request in flight on each connection.
pub async fn prefill(args: &Load, keys: &KeySpace, plan: &Plan) {
    let next: Vec<Cell<usize>> = plan.places().iter().map(|_| Cell::default()).collect();
    let writers = (0..args.conns).map(async |conn| {
        let (place, next) = (plan.of(conn), &next[conn as usize % next.len()]);
        let caller = async || {
            let link = connect(args, place, 1, || ()).await.remove(0);
            Caller::new(args, keys, place, link, u64::from(conn))
        };
        let mut writer = caller().await;
        while let Some(&index) = place.keys.get(next.replace(next.get() + 1)) {
            while writer.put(index).await.is_err() {
                sleep(RETRY_PAUSE).await;
                writer = caller().await;
            }
        }
    });
    join_all(writers).await;
}

/// The measured load of one thread.
pub struct Generator<'a> {
    args: &'a Load,
    keys: &'a KeySpace,
    plan: &'a Plan,
    meter: &'a Meter,
    recorder: RefCell<Recorder<'a>>,
    /// The connections of this thread.
    conns: Vec<u32>,
}

impl<'a> Generator<'a> {
    /// The one of this number among so many.
    pub fn new(
        args: &'a Load,
        keys: &'a KeySpace,
        plan: &'a Plan,
        meter: &'a Meter,
        thread: u32,
        threads: u32,
    ) -> Generator<'a> {
        let recorder = RefCell::new(meter.recorder(thread as usize));
        let conns = (0..args.conns).filter(|conn| conn % threads == thread).collect();
        Generator { args, keys, plan, meter, recorder, conns }
    }

    /// Keeps every connection busy until the window closes or the user has seen enough.
    pub async fn generate(&self) {
        let load = join_all(self.conns.iter().map(|&conn| self.keep_connected(conn)));
        select(pin!(load), pin!(self.wait_for_the_end())).await;
        self.recorder.borrow_mut().post();
    }

    async fn wait_for_the_end(&self) {
        let end = self.meter.window().end;
        while self.meter.now() < end && !self.meter.stopped() {
            let left = Duration::from_nanos(end.saturating_sub(self.meter.now()));
            sleep(TICK.min(left)).await;
            self.recorder.borrow_mut().post();
        }
    }

    /// One connection, dialled again when it breaks.
    async fn keep_connected(&self, conn: u32) {
        let place = self.plan.of(conn);
        loop {
            let failed = || self.failed(Fault::ConnectFailed, self.meter.now());
            let links = connect(self.args, place, self.args.inflight, failed).await;
            let slots = links.into_iter().enumerate();
            join_all(slots.map(|(slot, link)| self.keep_busy(place, link, u64::from(conn) << 32 | slot as u64))).await;
            self.failed(Fault::Disconnected, self.meter.now());
            sleep(RETRY_PAUSE).await;
        }
    }

    /// One request after the other, until the connection breaks.
    async fn keep_busy(&self, place: &Place, link: Link, seed: u64) {
        let mut caller = Caller::new(self.args, self.keys, place, link, seed);
        loop {
            let since = self.meter.now();
            match caller.next().await {
                Ok(()) => self.recorder.borrow_mut().answered(since, self.meter.now()),
                Err(Failure::Refused(name)) => self.failed(Fault::Refused(name), since),
                // What comes later would be taken for the answer to the next one.
                Err(Failure::NoReply) if self.args.target.is_http1() => return self.failed(Fault::NoReply, since),
                Err(Failure::NoReply) => self.failed(Fault::NoReply, since),
                Err(Failure::Broken) => return self.failed(Fault::ConnectionLost, since),
            }
        }
    }

    fn failed(&self, fault: Fault, since: u64) {
        self.recorder.borrow_mut().failed(fault, since, self.meter.now(), 1);
    }
}
