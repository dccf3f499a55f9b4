//! The prefill and the load: every connection and every request in flight is a future of one thread.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join_all, select};
use raftkv_bench::keys::KeySpace;
use raftkv_bench::meter::{Meter, Recorder};
use raftkv_bench::tally::Fault;
use tokio::time::sleep;

use crate::Args;
use crate::caller::{Caller, Failure, RETRY_PAUSE, connect};
use crate::grpc::Channel;

/// How often the counts are posted, and how soon an interrupt is noticed.
const TICK: Duration = Duration::from_millis(200);

/// Writes every key once, with one request in flight on each connection.
pub async fn prefill(args: &Args, keys: &KeySpace, leader: SocketAddr) {
    let next = Cell::new(0);
    let writers = (0..args.conns).map(async |conn| {
        let channel = || connect(leader, args.timeout, || ());
        let mut caller = Caller::new(args, keys, channel().await, u64::from(conn));
        while next.get() < args.keys {
            let index = next.replace(next.get() + 1);
            while caller.put(index).await.is_err() {
                sleep(RETRY_PAUSE).await;
                caller = Caller::new(args, keys, channel().await, u64::from(conn));
            }
        }
    });
    join_all(writers).await;
}

/// The measured load.
pub struct Load<'a> {
    args: &'a Args,
    keys: &'a KeySpace,
    leader: SocketAddr,
    meter: &'a Meter,
    recorder: RefCell<Recorder<'a>>,
}

impl<'a> Load<'a> {
    /// Recorded as the meter's only thread.
    pub fn new(args: &'a Args, keys: &'a KeySpace, leader: SocketAddr, meter: &'a Meter) -> Load<'a> {
        Load { args, keys, leader, meter, recorder: RefCell::new(meter.recorder(0)) }
    }

    /// Keeps every connection busy until the window closes or the user has seen enough.
    pub async fn generate(&self) {
        let load = join_all((0..self.args.conns).map(|conn| self.keep_connected(conn)));
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
        loop {
            let failed = || self.failed(Fault::ConnectFailed, self.meter.now());
            let channel = connect(self.leader, self.args.timeout, failed).await;
            join_all((0..self.args.inflight).map(|slot| self.keep_busy(channel.clone(), conn, slot))).await;
            self.failed(Fault::Disconnected, self.meter.now());
            sleep(RETRY_PAUSE).await;
        }
    }

    /// One request after the other, until the connection breaks.
    async fn keep_busy(&self, channel: Channel, conn: u32, slot: u32) {
        let seed = u64::from(conn) << 32 | u64::from(slot);
        let mut caller = Caller::new(self.args, self.keys, channel, seed);
        loop {
            let since = self.meter.now();
            match caller.next().await {
                Ok(()) => self.recorder.borrow_mut().answered(since, self.meter.now()),
                Err(Failure::Refused(name)) => self.failed(Fault::Refused(name), since),
                Err(Failure::NoReply) => self.failed(Fault::NoReply, since),
                Err(Failure::Broken) => return self.failed(Fault::ConnectionLost, since),
            }
        }
    }

    fn failed(&self, fault: Fault, since: u64) {
        self.recorder.borrow_mut().failed(fault, since, self.meter.now(), 1);
    }
}
