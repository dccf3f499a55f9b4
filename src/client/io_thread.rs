//! The client's I/O thread: it sleeps until sockets are ready, callers have something for it or time has made something
//! due, and then gives the driver a turn.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Receiver;
use mio::{Events, Token, Waker};

use super::backoff::random_seed;
use super::builder::Settings;
use super::driver::{Driver, Resolver};
use super::mio_network::MioNetwork;
use super::request::Job;
use crate::socket::Readiness;

/// No lane has it.
const DOORBELL: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 256;

/// Wakes the I/O thread, once for any number of requests handed over before it looks.
#[derive(Debug)]
pub(super) struct Doorbell {
    waker: Waker,
    rung: AtomicBool,
    closing: AtomicBool,
}

impl Doorbell {
    /// There is something in the channel.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // It fails only if the poll is gone, and then nobody is there to be woken.
            let _ = self.waker.wake();
        }
    }

    /// The I/O thread shall end.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }
}

/// What runs on the I/O thread.
#[derive(Debug)]
pub(super) struct IoThread {
    driver: Driver<MioNetwork>,
    doorbell: Arc<Doorbell>,
}

impl IoThread {
    pub(super) fn new(endpoints: &[String], settings: Settings, jobs: Receiver<Job>) -> io::Result<IoThread> {
        let network = MioNetwork::new()?;
        let waker = network.waker(DOORBELL)?;
        let doorbell = Arc::new(Doorbell { waker, rung: AtomicBool::new(false), closing: AtomicBool::new(false) });
        let resolver = Resolver::new(Arc::clone(&doorbell));
        let driver = Driver::new(endpoints, settings, network, jobs, random_seed(), Instant::now());
        Ok(IoThread { driver: driver.resolve_with(resolver), doorbell })
    }

    pub(super) fn doorbell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.doorbell)
    }

    /// Runs until the client is dropped.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        while !self.doorbell.closing.load(Ordering::Acquire) {
            let timeout = self.driver.next_timer().saturating_duration_since(Instant::now());
            if let Err(error) = self.driver.network_mut().wait(&mut events, timeout) {
                log::error!("the client's poll failed, all its requests fail with it: {error}");
                break;
            }
            let now = Instant::now();
            // Cleared before the channels are read, so that what is handed over later rings again. A swap, not a store:
            // it reads the last ring, and with it sees what was handed over before that.
            self.doorbell.rung.swap(false, Ordering::AcqRel);
            self.driver.turn(now, events.iter().map(Readiness::from));
        }
        self.driver.close();
    }
}
