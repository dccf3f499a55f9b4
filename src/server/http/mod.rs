//! HTTP on a core's loop: its connections, the tasks that serve them, and the questions that these ask of the router.
//!
//! In a turn, [`CoreLoop`](super::core_loop::CoreLoop) notes what the poll reports of the sockets, polls the tasks whose
//! sockets are ready ([`Http::run`]), takes what they ask, and polls them again when the shards have answered. A loop does
//! not sleep while something is asked that nobody has taken, or a task is to be polled.

#[cfg(not(any(feature = "rest", feature = "grpc")))]
compile_error!("the feature `http` is what `rest` and `grpc` share, and nothing by itself: choose one of them");

mod faces;
mod frames;
mod probes;
mod serve;
mod streams;
mod turn;
mod watch;

#[cfg(test)]
mod frames_test;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use slab::Slab;

use crate::api::ask::{Backend, Question, Scrape};
use crate::api::held::Held;
use crate::api::node_handle::{Health, NodeHandle};
use crate::config::Config;
use crate::event_loop::{HttpSocket, LoopTimer, Scratch, TaskId, Tasks, Wake, scratch};
use crate::metrics::Counters;
use crate::metrics::requests::{Face, Requests};
use crate::socket::{Readiness, Socket};

use super::message::ExchangeId;

use faces::Faces;
pub(super) use probes::Probes;
use serve::{Counts, Shared, turn_away};

/// How many batches of tasks, each woken by the one before, run before the sockets are looked at again.
const BATCHES_MAX: usize = 3;

/// A connection as the loop sees it.
struct Entry<S> {
    socket: Rc<HttpSocket<S>>,
    task: TaskId,
}

/// The HTTP connections of a core.
pub(super) struct Http<S> {
    connections: Slab<Entry<S>>,
    /// Connections that have ended; their tasks say so as they go.
    ended: Ended,
    tasks: Tasks,
    timer: LoopTimer,
    shared: Rc<Shared>,
    backend: Backend,
    /// An empty list for what the tasks ask.
    questions: Vec<Question>,
    /// Reads that wait for room.
    parked: BTreeMap<ExchangeId, Question>,
    bodies: Held,
    bodies_late: Arc<AtomicU64>,
    replies: Held,
    scrapes: Held,
    scratch: Scratch,
}

impl<S> fmt::Debug for Http<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

/// Where tasks leave the places of connections that have ended.
type Ended = Rc<RefCell<Vec<usize>>>;

/// Says that a connection has ended when its task does, in whatever way.
struct Farewell {
    place: usize,
    ended: Ended,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        self.ended.borrow_mut().push(self.place);
    }
}

impl<S: Socket + 'static> Http<S> {
    /// No connections yet. `wake` makes the core's loop turn.
    pub(super) fn new(config: &Config, health: Arc<dyn Health>, wake: Wake, now: Instant) -> Http<S> {
        let limits = &config.limits;
        let tasks = Tasks::new(wake);
        let timer = LoopTimer::new(now);
        let (backend, replies) = (Backend::default(), Held::new(limits.core_reply_bytes_max));
        let scrapes = Held::new(limits.core_scrapes_max);
        let (bodies, bodies_late) = (Held::new(limits.core_http_body_bytes_max), Arc::<AtomicU64>::default());
        let counts = Counts::default();
        let node = NodeHandle {
            face: Face::Rest,
            backend: backend.clone(),
            limits: Arc::new(limits.clone()),
            shards: config.shards,
            timer: Arc::new(timer.clone()),
            bodies: bodies.clone(),
            bodies_late: Arc::clone(&bodies_late),
            deadlines: Arc::clone(&counts.deadlines),
            replies: replies.clone(),
            scrapes: scrapes.clone(),
            health,
            members: config.initial_cluster.clone().into(),
        };
        let shared = Rc::new(Shared {
            faces: Faces::new(node, config),
            timer: timer.clone(),
            spawner: tasks.spawner(),
            limits: limits.clone(),
            stopping: false.into(),
            counts,
        });
        Http {
            connections: Slab::new(),
            ended: Ended::default(),
            tasks,
            timer,
            shared,
            backend,
            questions: Vec::new(),
            parked: BTreeMap::new(),
            bodies,
            bodies_late,
            replies,
            scrapes,
            scratch: scratch(),
        }
    }

    /// The place that the next connection will have.
    pub(super) fn next_place(&self) -> usize {
        self.connections.vacant_key()
    }

    /// Takes in a connection that was registered for [`Http::next_place`].
    pub(super) fn add(&mut self, socket: S) {
        let socket = Rc::new(HttpSocket::new(socket, Rc::clone(&self.scratch)));
        let vacant = self.connections.vacant_entry();
        let farewell = Farewell { place: vacant.key(), ended: Rc::clone(&self.ended) };
        let served = serve::serve(Rc::clone(&socket), Rc::clone(&self.shared));
        let task = self.tasks.spawn(async move {
            let _farewell = farewell;
            served.await;
        });
        vacant.insert(Entry { socket, task });
    }

    /// Takes down what the poll reports of a connection.
    pub(super) fn note(&self, place: usize, ready: &Readiness) {
        if let Some(entry) = self.connections.get(place) {
            entry.socket.note(ready);
            self.tasks.wake(entry.task);
        }
    }

    /// The loop is up, and will poll what is ready before it sleeps.
    pub(super) fn begin_turn(&self) {
        self.tasks.wake_up();
    }

    /// Polls the tasks that are ready, and returns how many connections have ended with that. Without connections it costs
    /// nothing.
    pub(super) fn run(&mut self, now: Instant) -> usize {
        if self.tasks.is_empty() {
            return 0;
        }
        self.timer.advance(now);
        // Over HTTP/2 a request is a task that its connection brings in, and its response wakes the connection.
        let mut batches = 1;
        while self.tasks.run_ready() && batches < BATCHES_MAX {
            batches += 1;
        }
        let ended = std::mem::take(&mut *self.ended.borrow_mut());
        for place in &ended {
            self.connections.remove(*place);
        }
        ended.len()
    }

    /// What the tasks have asked, in the list that was given back, and those of them that wait for the node's figures.
    fn take_asked(&mut self) -> (Vec<Question>, Vec<Scrape>) {
        let mut questions = std::mem::take(&mut self.questions);
        let scrapes = self.backend.take_asked(&mut questions);
        (questions, scrapes)
    }

    /// Keeps a read until there is room for its answer.
    fn park(&mut self, exchange: ExchangeId, question: Question) {
        self.parked.insert(exchange, question);
    }

    /// Takes such a read back.
    fn unpark(&mut self, exchange: ExchangeId) -> Option<Question> {
        self.parked.remove(&exchange)
    }

    /// Bytes of replies that wait for their readers.
    pub(super) fn unread_bytes(&self) -> usize {
        self.replies.bytes()
    }

    /// When the loop must turn again at the latest; `None` if nothing is to be done here before something comes in.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.tasks.is_empty() {
            return None;
        }
        if !self.backend.is_empty() || !self.ended.borrow().is_empty() || !self.tasks.may_sleep() {
            return Some(now);
        }
        self.timer.deadline()
    }

    /// Has the connections finish what they have begun, and end.
    pub(super) fn stop(&self) {
        if !self.shared.stopping.replace(true) {
            self.tasks.wake_all();
        }
    }

    /// Whether no connection is left.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Adds what was counted here.
    pub(super) fn count(&self, counters: &mut Counters, requests: &mut Requests) {
        let counts = &self.shared.counts;
        for (face, task, code) in self.backend.take_refused() {
            requests.refused(face, task, code);
            counters.refused(code);
        }
        counters.http_requests = counts.requests.get();
        counters.http_connections_open = self.connections.len() as u64;
        [counters.http_refused_4xx, counters.http_refused_5xx] = [0, 1].map(|at: usize| counts.refused[at].get());
        counters.http_bodies_late = self.bodies_late.load(Ordering::Relaxed);
        counters.overloaded_bodies = self.bodies.refusals();
        counters.overloaded_scrapes = self.scrapes.refusals();
        counters.http_connections_late = counts.late.get();
        counters.http_connections_broken = counts.broken.get();
        counters.http_streams_late = counts.streams_late.get();
        counters.http_streams_refused = counts.streams_refused.get();
        counters.http_streams_broken = counts.streams_broken.get();
        counters.http_floods = counts.floods.get();
        counters.grpc_deadlines = counts.deadlines.load(Ordering::Relaxed);
    }
}
