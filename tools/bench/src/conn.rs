//! One connection of the load: dials, says hello, keeps its requests in flight.
//!
//! Knows the protocol and its own place in the run; whom to dial and when is the worker's business.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use mio::{Registry, Token};
use raftkv_protocol::client::{Answer, Code, Operation, Reply, Request, SlotTable};
use raftkv_protocol::frame::Frame;
use raftkv_protocol::types::RequestId;

use crate::blocking::{hello, welcomed};
use crate::inflight::Inflight;
use crate::link::{Link, garbled};
use crate::meter::Recorder;
use crate::operations::Operations;
use crate::schedule::Schedule;
use crate::tally::Fault;
use crate::topology::Target;

/// The id of a request for the slot table, which no [`Inflight`] gives out.
const TABLE_ID: RequestId = RequestId(u64::MAX);
/// How long a connection sends nothing new after an answer that says that now is not the time.
const PAUSE_NS: u64 = 5_000_000;
const BACKOFF_MIN_NS: u64 = 5_000_000;
const BACKOFF_MAX_NS: u64 = 200_000_000;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No socket.
    Down,
    /// The socket is being connected.
    Connecting,
    /// The hello is on its way.
    Greeting,
    /// Requests may be sent.
    Ready,
    /// The target has changed: nothing new is sent, and when the last reply is in, the new target is dialled.
    Leaving,
}

/// What the replies of a turn tell the worker.
#[derive(Debug, Default)]
pub struct News {
    /// A slot table arrived.
    pub table: Option<SlotTable>,
    /// A node does not lead what it was thought to lead.
    pub moved: bool,
    /// The connection is ready to be used.
    pub welcomed: bool,
}

/// What all connections of a thread use.
#[derive(Debug)]
pub struct Tools<'a> {
    /// The requests.
    pub operations: Operations,
    /// The counts.
    pub recorder: Recorder<'a>,
    /// The shared read buffer.
    pub buffer: Vec<u8>,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// Where it goes, or will go once it has left.
    pub target: Target,
    /// How far it is.
    pub phase: Phase,
    /// The keys that it draws from.
    pub keys: Rc<[u32]>,
    /// The cores of the node that welcomed it.
    pub cores: u16,
    link: Option<Link>,
    inflight: Inflight,
    schedule: Schedule,
    paused_until: u64,
    backoff_ns: u64,
}

impl Conn {
    /// A connection that has not been dialled yet.
    pub fn new(target: Target, inflight: usize, schedule: Schedule) -> Conn {
        Conn {
            target,
            phase: Phase::Down,
            keys: Rc::new([]),
            cores: 1,
            link: None,
            inflight: Inflight::new(inflight),
            schedule,
            paused_until: 0,
            backoff_ns: BACKOFF_MIN_NS,
        }
    }

    /// Begins to connect.
    pub fn dial(&mut self, address: SocketAddr, registry: &Registry, token: Token) -> io::Result<()> {
        self.link = Some(Link::connect(address, registry, token)?);
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// The socket is ready for something: finishes connecting and reads what has come. [`Conn::fill`] and
    /// [`Conn::flush`] should follow. An error means that the connection is of no use any more.
    pub fn on_ready(&mut self, readable: bool, tools: &mut Tools<'_>, now: u64) -> io::Result<News> {
        let mut news = News::default();
        if self.phase == Phase::Connecting && !self.greet()? {
            return Ok(news);
        }
        if readable {
            self.receive(tools, now, &mut news)?;
        }
        Ok(news)
    }

    /// Says hello if the socket is connected.
    fn greet(&mut self) -> io::Result<bool> {
        let Some(link) = self.link.as_mut() else { return Ok(false) };
        if !link.established()? {
            return Ok(false);
        }
        hello(Some(self.target.home)).encode(&mut link.out);
        self.phase = Phase::Greeting;
        Ok(true)
    }

    fn receive(&mut self, tools: &mut Tools<'_>, now: u64, news: &mut News) -> io::Result<()> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        let Tools { recorder, buffer, .. } = tools;
        let Conn { inflight, phase, paused_until, backoff_ns, cores, .. } = self;
        link.receive(buffer, |frame, _| {
            if *phase == Phase::Greeting {
                *cores = welcomed(frame.kind, frame.payload)?;
                *phase = Phase::Ready;
                *backoff_ns = BACKOFF_MIN_NS;
                news.welcomed = true;
                return Ok(());
            }
            match settle(frame, inflight, recorder, now)? {
                Settled::Done => {}
                Settled::Table(table) => news.table = Some(table),
                Settled::Later { moved } => {
                    news.moved |= moved;
                    *paused_until = now + PAUSE_NS;
                }
            }
            Ok(())
        })
    }

    /// Queues every request that is due now or, after `until`, was due then, as far as there is room. [`Conn::flush`] sends them.
    pub fn fill(&mut self, operations: &mut Operations, now: u64, until: u64) {
        if self.phase != Phase::Ready || now < self.paused_until || self.keys.is_empty() {
            return;
        }
        let now = now.min(until);
        let Some(link) = self.link.as_mut() else { return };
        while self.inflight.has_room() {
            let Some(since) = self.schedule.due(now) else { return };
            let Some(id) = self.inflight.begin(since) else { return };
            self.schedule.sent();
            operations.encode_next(id, &self.keys, &mut link.out);
        }
    }

    /// Asks for the slot table.
    pub fn ask_for_table(&mut self) {
        if let Some(link) = self.link.as_mut() {
            Request { id: TABLE_ID, operation: Operation::Slots }.encode(&mut link.out);
        }
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.link.as_mut().map_or(Ok(()), Link::flush)
    }

    /// Until when nothing new is sent, if that is in the future.
    pub fn pause(&self, now: u64) -> Option<u64> {
        (self.paused_until > now).then_some(self.paused_until)
    }

    /// Drops the socket. Whatever was in flight is lost, with an unknown outcome. Returns how long to wait before the
    /// next attempt.
    pub fn close(&mut self, recorder: &mut Recorder<'_>, now: u64) -> u64 {
        self.link = None;
        self.phase = Phase::Down;
        self.inflight.expire(u64::MAX, |since| recorder.failed(Fault::ConnectionLost, since, now, 1));
        let wait = self.backoff_ns;
        self.backoff_ns = (wait * 2).min(BACKOFF_MAX_NS);
        wait
    }

    /// Gives up what has waited since before `deadline`.
    pub fn expire(&mut self, deadline: u64, recorder: &mut Recorder<'_>, now: u64) {
        self.inflight.expire(deadline, |since| recorder.failed(Fault::NoReply, since, now, 1));
    }

    /// Requests without a reply.
    pub fn waiting(&self) -> usize {
        self.inflight.waiting()
    }

    /// Requests that were due before `until` and could not be sent.
    pub fn unsent(&self, until: u64) -> u64 {
        self.schedule.unsent(until)
    }
}

enum Settled {
    Done,
    Table(SlotTable),
    /// The server cannot serve this now; `moved` if somebody else can.
    Later {
        moved: bool,
    },
}

fn settle(frame: Frame<'_>, inflight: &mut Inflight, recorder: &mut Recorder<'_>, now: u64) -> io::Result<Settled> {
    let reply = Reply::decode(frame.kind, frame.payload).map_err(garbled)?;
    if reply.id == TABLE_ID {
        return Ok(match reply.result {
            Ok(Answer::Slots(table)) => Settled::Table(table),
            _ => Settled::Done,
        });
    }
    // A reply that comes after its request was given up has been counted as missing.
    let Some(since) = inflight.settle(reply.id) else { return Ok(Settled::Done) };
    let Err(refusal) = reply.result else {
        recorder.answered(since, now);
        return Ok(Settled::Done);
    };
    recorder.failed(Fault::Refused(refusal.code.name()), since, now, 1);
    Ok(match refusal.code {
        Code::NotLeader | Code::NoLeader => Settled::Later { moved: true },
        Code::NotReady | Code::Overloaded | Code::NoSpace | Code::Diverged => Settled::Later { moved: false },
        _ => Settled::Done,
    })
}
