//! What the targets look for is found: each is given something that is broken, and has to say so.

use raftkv::limits::Limits;
use raftkv::state_machine::{ApplyError, Outcome, StateMachine};
use raftkv::storage::{self, LogError};
use raftkv_fuzz::Target;
use raftkv_fuzz::engine::Worker;
use raftkv_fuzz::feedback::Feedback;
use raftkv_fuzz::targets::apply_twice::{self, Machine};
use raftkv_fuzz::targets::frames::{self, Codec, Message, Protocol};
use raftkv_fuzz::targets::raft_messages::{self, Disk};
use raftkv_fuzz::targets::{self, client_requests, log_reader};
use raftkv_protocol::client::{Code, Consistency, Operation, Request};
use raftkv_protocol::frame::{self, CLIENT_FRAME_MAX, DecodeError, Frame, FrameError, PEER_FRAME_MAX};
use raftkv_protocol::kind;
use raftkv_protocol::types::{Entry, EntryKind, HardState, NodeId, RequestId, ShardId};

/// The words with which the target's checks refuse what is broken. The input must say the same when it is run again.
#[track_caller]
fn caught(name: &str, run: fn(&[u8], &mut Feedback)) -> String {
    let target = targets::all().into_iter().find(|target| target.name == name).expect("it is listed");
    let broken = Target { run, ..target };
    let failure = Worker::new(broken, 1).run(60_000).expect_err("the targets found nothing");
    let again = raftkv_fuzz::panics::catch(|| run(&failure.input, &mut Feedback::default()));
    again.expect_err("the input that was reported breaks nothing");
    failure.words
}

#[track_caller]
fn assert_says(words: &str, part: &str) {
    assert!(words.contains(part), "{words:?} does not say {part:?}");
}

/// A decoder with one thing wrong.
struct Broken {
    parse: for<'a> fn(&'a [u8], usize) -> Result<Option<Frame<'a>>, FrameError>,
    decode: for<'a> fn(u8, &'a [u8]) -> Result<Message<'a>, DecodeError>,
}

impl Codec for Broken {
    fn parse<'a>(&self, buffer: &'a [u8], max: usize) -> Result<Option<Frame<'a>>, FrameError> {
        (self.parse)(buffer, max)
    }

    fn decode<'a>(&self, kind: u8, payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        (self.decode)(kind, payload)
    }

    fn encode(&self, message: &Message<'_>, out: &mut Vec<u8>) {
        Protocol.encode(message, out);
    }
}

fn right<'a>(kind: u8, payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
    Protocol.decode(kind, payload)
}

#[test]
fn a_length_that_nobody_checks() {
    fn decode<'a>(kind: u8, payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        if kind != kind::GET || payload.len() < 11 {
            return right(kind, payload);
        }
        let length = usize::from(u16::from_le_bytes([payload[9], payload[10]]));
        let (key, consistency) = (&payload[11..11 + length], Consistency::Linearizable);
        Ok(Message::Request(Request { id: RequestId(1), operation: Operation::Get { key, consistency } }))
    }
    let run = |data: &[u8], feedback: &mut Feedback| {
        frames::check_stream(&Broken { parse: frame::parse, decode }, data, CLIENT_FRAME_MAX, feedback);
    };
    // Whichever is met first: the missing check, or the fields that were not read.
    caught("client-frames", run);
}

#[test]
fn a_count_that_is_believed() {
    fn decode<'a>(kind: u8, payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        if kind == kind::APPEND && payload.len() >= 58 {
            let count = u32::from_le_bytes([payload[54], payload[55], payload[56], payload[57]]);
            drop(Vec::<u64>::with_capacity(count.min(1 << 16) as usize));
        }
        right(kind, payload)
    }
    let run = |data: &[u8], feedback: &mut Feedback| {
        frames::check_stream(&Broken { parse: frame::parse, decode }, data, PEER_FRAME_MAX, feedback);
    };
    assert_says(&caught("peer-frames", run), "bytes were allocated where");
}

#[test]
fn a_frame_that_is_taken_before_it_is_whole() {
    fn parse<'a>(buffer: &'a [u8], max: usize) -> Result<Option<Frame<'a>>, FrameError> {
        match frame::parse(buffer, max) {
            Ok(None) if buffer.len() >= 40 => {
                let (kind, payload) = (buffer[8], &buffer[9..]);
                Ok(Some(Frame { kind, payload, consumed: buffer.len() }))
            }
            parsed => parsed,
        }
    }
    let run = |data: &[u8], feedback: &mut Feedback| {
        frames::check_stream(&Broken { parse, decode: right }, data, CLIENT_FRAME_MAX, feedback);
    };
    assert_says(&caught("client-frames", run), "in pieces");
}

#[test]
fn a_field_that_is_lost() {
    fn decode<'a>(kind: u8, payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        right(kind, payload).map(|message| match message {
            Message::Request(request) => Message::Request(Request { id: RequestId(1), ..request }),
            message => message,
        })
    }
    let run = |data: &[u8], feedback: &mut Feedback| {
        frames::check_stream(&Broken { parse: frame::parse, decode }, data, CLIENT_FRAME_MAX, feedback);
    };
    assert_says(&caught("client-frames", run), "written in other bytes");
}

#[test]
fn an_api_that_takes_everything() {
    fn check(_: &Operation<'_>, _: &Limits) -> Result<(), (Code, String)> {
        Ok(())
    }
    assert_says(
        &caught("client-requests", |data, feedback| client_requests::run_with(check, data, feedback)),
        "left: None",
    );
}

#[test]
fn a_log_reader_that_hides_damage() {
    let run = |data: &[u8], feedback: &mut Feedback| {
        let hides = |disk: &dyn storage::disk::Disk| storage::check(disk).or_else(|_| Ok(log_reader::Contents::new()));
        log_reader::run_with(hides, data, feedback);
    };
    assert_says(&caught("log-reader", run), "was not told");
}

#[test]
fn a_log_reader_that_believes_a_flipped_byte() {
    let run = |data: &[u8], feedback: &mut Feedback| {
        let flips = |disk: &dyn storage::disk::Disk| {
            let mut contents = storage::check(disk)?;
            if let Some(shard) = contents.get_mut(&ShardId(1)) {
                shard.hard_state = HardState { vote: Some(NodeId(9)), ..shard.hard_state };
            }
            Ok(contents)
        };
        log_reader::run_with(flips, data, feedback);
    };
    assert_says(&caught("log-reader", run), "other contents than after batch");
}

#[test]
fn a_log_reader_that_drops_the_last_entry() {
    let run = |data: &[u8], feedback: &mut Feedback| {
        let shortens = |disk: &dyn storage::disk::Disk| {
            let mut contents = storage::check(disk)?;
            contents.values_mut().next().map(|shard| shard.entries.pop());
            Ok(contents)
        };
        log_reader::run_with(shortens, data, feedback);
    };
    assert_says(&caught("log-reader", run), "other contents than after batch");
}

#[test]
fn a_log_reader_that_refuses_a_torn_tail() {
    let run = |data: &[u8], feedback: &mut Feedback| {
        let refuses = |disk: &dyn storage::disk::Disk| {
            let contents = storage::check(disk)?;
            match contents.values().map(|shard| shard.entries.len()).sum::<usize>() {
                0..6 => Err(LogError("segment-0000000000000001.log at offset 0: too short for my taste".to_owned())),
                _ => Ok(contents),
            }
        };
        log_reader::run_with(refuses, data, feedback);
    };
    assert_says(&caught("log-reader", run), "refused, though");
}

#[test]
fn replicas_whose_disks_lie() {
    caught("raft-messages", |data, feedback| raft_messages::run_on(Disk::Lying, data, feedback));
}

/// A replica that takes deletes for nothing.
#[derive(Default)]
struct Keeping(StateMachine);

impl Machine for Keeping {
    fn apply(&mut self, entry: &Entry) -> Result<Outcome, ApplyError> {
        let is_delete = entry.kind == EntryKind::Command && entry.body.get(4) == Some(&2);
        let kind = if is_delete { EntryKind::Noop } else { entry.kind };
        self.0.apply(&Entry { kind, ..entry.clone() })
    }

    fn state(&self) -> &StateMachine {
        &self.0
    }
}

/// A replica that trusts the length of an entry.
#[derive(Default)]
struct Trusting(StateMachine);

impl Machine for Trusting {
    fn apply(&mut self, entry: &Entry) -> Result<Outcome, ApplyError> {
        if entry.kind == EntryKind::Command {
            assert_ne!(entry.body[1], 0xff, "no such flag");
        }
        self.0.apply(entry)
    }

    fn state(&self) -> &StateMachine {
        &self.0
    }
}

#[test]
fn replicas_that_differ() {
    assert_says(&caught("apply-twice", apply_twice::run_with::<Keeping>), "two replicas differ");
}

// museum 54
#[test]
fn an_entry_that_panics_a_replica() {
    assert_says(&caught("apply-twice", apply_twice::run_with::<Trusting>), "index out of bounds");
}
