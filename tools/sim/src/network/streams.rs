//! What sockets read and write, and what becomes of single frames on the links between nodes.

use std::io;

use raftkv_protocol::frame;
use raftkv_protocol::peer::PeerFrame;

use super::{DIALLER, Net, Segment, Side};

impl Net {
    pub(crate) fn read(&mut self, id: u64, side: Side, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(connection) = self.connections.get_mut(&id) else { return Err(io::ErrorKind::NotConnected.into()) };
        let end = &mut connection.ends[side];
        let length = end.arrived.len().min(buffer.len());
        if length == 0 {
            return match end.error {
                Some(error) => Err(error.into()),
                None if end.ended => Ok(0),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let (front, back) = end.arrived.as_slices();
        let from_front = front.len().min(length);
        buffer[..from_front].copy_from_slice(&front[..from_front]);
        buffer[from_front..length].copy_from_slice(&back[..length - from_front]);
        end.arrived.drain(..length);
        let flow = &mut connection.flows[1 - side];
        flow.outstanding = flow.outstanding.saturating_sub(length);
        if std::mem::take(&mut flow.blocked) {
            self.report(id, 1 - side, |ready| ready.writable = true);
        }
        Ok(length)
    }

    pub(crate) fn write(&mut self, id: u64, side: Side, bytes: &[u8]) -> io::Result<usize> {
        let Some(connection) = self.connections.get_mut(&id) else { return Err(io::ErrorKind::NotConnected.into()) };
        if let Some(error) = connection.ends[side].error {
            return Err(error.into());
        }
        if side == DIALLER && !connection.established {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let flow = &mut connection.flows[side];
        let length = bytes.len().min(self.plan.window.saturating_sub(flow.outstanding));
        if length == 0 {
            flow.blocked = true;
            self.stats.blocked += 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        connection.overhear(side, &bytes[..length], &mut self.told);
        let flow = &mut connection.flows[side];
        if connection.between_nodes
            && side == DIALLER
            && (self.frame_faults || !flow.partial.is_empty() || !flow.greeted)
        {
            self.write_frames(id, &bytes[..length]);
        } else {
            flow.outstanding += length;
            self.send(id, side, Segment::Bytes(bytes[..length].to_vec()), true);
        }
        Ok(length)
    }

    /// Takes the bytes of a link between nodes apart into frames, each of which has its own fate.
    pub(super) fn write_frames(&mut self, id: u64, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut pending = std::mem::take(&mut connection.flows[DIALLER].partial);
        let mut greeted = connection.flows[DIALLER].greeted;
        pending.extend_from_slice(bytes);
        let mut at = 0;
        while let Ok(Some(found)) = frame::parse(&pending[at..], frame::PEER_FRAME_MAX) {
            let whole = pending[at..at + found.consumed].to_vec();
            let is_raft = || matches!(PeerFrame::decode(found.kind, found.payload), Ok(PeerFrame::Message(_)));
            let may_double = greeted && self.frame_faults && is_raft();
            self.send_frame(id, whole, greeted && self.frame_faults, may_double);
            greeted = true;
            at += found.consumed;
        }
        pending.drain(..at);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.flows[DIALLER].partial = pending;
            connection.flows[DIALLER].greeted = greeted;
        }
    }

    pub(super) fn send_frame(&mut self, id: u64, frame: Vec<u8>, may_fail: bool, may_double: bool) {
        if may_fail && self.random.chance(self.plan.lost) {
            self.stats.frames_lost += 1;
            return;
        }
        let doubled = may_double && self.random.chance(self.plan.doubled);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.flows[DIALLER].outstanding += frame.len() * (1 + usize::from(doubled));
        }
        if doubled {
            self.stats.frames_doubled += 1;
            self.send(id, DIALLER, Segment::Bytes(frame.clone()), false);
        }
        let late = may_fail && self.random.chance(self.plan.overtaking);
        self.stats.frames_late += u64::from(late);
        self.send(id, DIALLER, Segment::Bytes(frame), !late);
    }
}
