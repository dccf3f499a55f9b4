//! Writes a snapshot of this node, item by item, into a file that gets its name when it is whole and durable.

use raftkv_protocol::types::Index;

use super::format::{BlockKind, FileLength, Footer, Header, Item, PAYLOAD_BYTES_MAX, begin_block, end_block};
use super::unfinished::Unfinished;
use super::{PIECE_BYTES, SnapshotError, SnapshotInfo, SnapshotStore};

/// A snapshot that is being written. It does so while it is fed, a piece at a time; whoever drops it gives it up.
#[derive(Debug)]
pub struct SnapshotWriter {
    store: SnapshotStore,
    file: Unfinished,
    header: Header,
    /// What was not written yet: from the beginning of a block, or of the file.
    pending: Vec<u8>,
    /// Where in `pending` the block begins that gets the next item, if one has begun.
    block: Option<usize>,
    length: FileLength,
    written: u64,
    blocks: u64,
    items: u64,
    bytes: u64,
    last_key: Vec<u8>,
}

impl SnapshotWriter {
    /// Begins the file with its header.
    pub(super) fn new(store: SnapshotStore, file: Unfinished, header: Header) -> Result<SnapshotWriter, SnapshotError> {
        let pending = header.encode().ok_or(SnapshotError::TooLong)?;
        let length = FileLength::new(&header.hash_format, &header.configuration);
        Ok(SnapshotWriter {
            store,
            file,
            header,
            pending,
            block: None,
            length,
            written: 0,
            blocks: 0,
            items: 0,
            bytes: 0,
            last_key: Vec::new(),
        })
    }

    /// What the file begins with.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The bytes of keys and values that it was given.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the item whose key comes next in byte order. After an error the snapshot is given up.
    pub fn push(&mut self, item: Item<'_>) -> Result<(), SnapshotError> {
        if item.encoded_bytes() > PAYLOAD_BYTES_MAX {
            return Err(self.give_up(SnapshotError::TooLong));
        }
        if self.items > 0 && *self.last_key >= *item.key {
            return Err(self.give_up(SnapshotError::OutOfOrder));
        }
        if self.length.push(&item) && self.block.is_some() {
            self.end_block(BlockKind::Items);
            self.write_pending(PIECE_BYTES)?;
        }
        self.begin_block();
        item.encode(&mut self.pending);
        item.key.clone_into(&mut self.last_key);
        self.items += 1;
        self.bytes += (item.key.len() + item.value.len()) as u64;
        Ok(())
    }

    /// Ends the file, makes it durable under its name, and lets go of older ones. `hash` is that of the state, and
    /// `checkpoints` are its latest. After an error it is as if the snapshot had never begun.
    pub fn finish(mut self, hash: u128, checkpoints: Vec<(Index, u128)>) -> Result<SnapshotInfo, SnapshotError> {
        if self.block.is_some() {
            self.end_block(BlockKind::Items);
        }
        self.begin_block();
        let start = self.pending.len();
        Footer { items: self.items, bytes: self.bytes, hash, checkpoints }.encode(&mut self.pending);
        if self.pending.len() - start > PAYLOAD_BYTES_MAX {
            return Err(SnapshotError::TooLong);
        }
        self.end_block(BlockKind::Footer);
        self.write_pending(1)?;
        let SnapshotWriter { store, mut file, header, written, .. } = self;
        if file.size()? > written {
            // It was another snapshot before, and a longer one.
            file.truncate(written)?;
        }
        let info = SnapshotInfo { id: header.id, at: header.at, bytes: written };
        store.publish(file, info)?;
        Ok(info)
    }

    fn give_up(&mut self, error: SnapshotError) -> SnapshotError {
        self.file.give_up();
        error
    }

    fn begin_block(&mut self) {
        if self.block.is_none() {
            self.block = Some(self.pending.len());
            begin_block(&mut self.pending);
        }
    }

    fn end_block(&mut self, kind: BlockKind) {
        if let Some(start) = self.block.take() {
            self.blocks += 1;
            end_block(&mut self.pending[start..], self.header.id, self.blocks, kind);
        }
    }

    /// Writes what is pending if it is at least so much.
    fn write_pending(&mut self, least: usize) -> Result<(), SnapshotError> {
        if self.pending.len() >= least {
            self.file.write(self.written, &self.pending)?;
            self.written += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }
}
