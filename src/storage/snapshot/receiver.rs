//! Takes a snapshot from a peer, chunk by chunk, and checks it while it comes.

use raftkv_protocol::types::ShardId;

use super::decoder::{Decoder, Step};
use super::format::BadSnapshot;
use super::unfinished::Unfinished;
use super::{PIECE_BYTES, SnapshotError, SnapshotInfo, SnapshotStore};

/// A snapshot that comes from a peer. It may be dropped: a later one, of this process or the next, goes on with the
/// file. After an error, unless it is [`SnapshotError::OutOfPlace`], the file is gone, and all of it is wanted again.
#[derive(Debug)]
pub struct SnapshotReceiver {
    store: SnapshotStore,
    file: Unfinished,
    shard: ShardId,
    info: SnapshotInfo,
    decoder: Decoder,
    /// The bytes that were received: all of them in the file and given to the decoder.
    received: u64,
    is_resumed: bool,
}

impl SnapshotReceiver {
    /// Nothing is known yet of what the file holds.
    pub(super) fn new(store: SnapshotStore, file: Unfinished, shard: ShardId, info: SnapshotInfo) -> SnapshotReceiver {
        let decoder = Decoder::default();
        SnapshotReceiver { store, file, shard, info, decoder, received: 0, is_resumed: false }
    }

    /// What was announced.
    #[must_use]
    pub fn info(&self) -> SnapshotInfo {
        self.info
    }

    /// Looks for what an earlier process received, a piece at a time. `None`: there is more to look at. Otherwise the
    /// offset of the chunk that is wanted first.
    ///
    /// Each piece is written again: the page cache may show what the disk does not hold, and no sync would tell.
    pub fn resume(&mut self) -> Result<Option<u64>, SnapshotError> {
        if self.is_resumed {
            return Ok(Some(self.received));
        }
        let mut piece = vec![0; PIECE_BYTES];
        let read = self.file.read(self.received, &mut piece)?;
        if read > 0 {
            self.file.write(self.received, &piece[..read])?;
            self.received += read as u64;
            self.decoder.feed(&piece[..read]);
            if self.decode().is_ok() {
                return Ok(None);
            }
        }
        // A crash may have left anything behind the last right block.
        self.decoder.forget_undecoded();
        if self.is_foreign() || self.decoder.offset() > self.info.bytes {
            self.decoder = Decoder::default();
        }
        let end = self.decoder.offset();
        if end < self.received {
            self.file.truncate(end)?;
            self.received = end;
        }
        self.is_resumed = true;
        Ok(Some(end))
    }

    /// Takes the next chunk. It is refused unless it begins where the last one ended, and [`SnapshotReceiver::resume`]
    /// has said where the first one does.
    pub fn write(&mut self, offset: u64, chunk: &[u8]) -> Result<(), SnapshotError> {
        if !self.is_resumed || offset != self.received {
            return Err(SnapshotError::OutOfPlace { expected: self.received });
        }
        if chunk.len() as u64 > self.info.bytes.saturating_sub(offset) {
            return Err(self.damaged("it is longer than announced"));
        }
        self.file.write(offset, chunk)?;
        self.received += chunk.len() as u64;
        self.decoder.feed(chunk);
        self.decode().map_err(|bad| {
            self.file.give_up();
            SnapshotError::bad(&self.file.path(), bad)
        })
    }

    /// Whether everything has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_resumed && self.received == self.info.bytes
    }

    /// Makes the snapshot durable under its name, and lets go of older ones. Every byte of it was checked.
    pub fn finish(mut self) -> Result<SnapshotInfo, SnapshotError> {
        if !self.is_complete() {
            return Err(SnapshotError::OutOfPlace { expected: self.received });
        }
        if self.decoder.footer().is_none() {
            return Err(self.damaged("the file ends before its footer"));
        }
        self.store.publish(self.file, self.info)?;
        Ok(self.info)
    }

    /// Decodes what there is.
    fn decode(&mut self) -> Result<(), BadSnapshot> {
        loop {
            match self.decoder.step()? {
                Step::Starved => return Ok(()),
                Step::Header if self.is_foreign() => {
                    return Err(BadSnapshot::Damaged { offset: 0, what: "it is another snapshot than announced" });
                }
                Step::Header | Step::Items | Step::Footer => {}
            }
        }
    }

    fn is_foreign(&self) -> bool {
        let announced = (self.info.id, self.shard, self.info.at);
        self.decoder.header().is_some_and(|header| (header.id, header.shard, header.at) != announced)
    }

    fn damaged(&mut self, what: &'static str) -> SnapshotError {
        self.file.give_up();
        SnapshotError::Damaged { path: self.file.path(), offset: self.received, what }
    }
}
