//! Takes a snapshot's bytes as they come, and checks every one of them.
//!
//! The same decoder reads a file and judges what a peer sends: nothing is taken for a snapshot on any other way. It
//! holds no more than the block that is not all there yet. After an error it stands where the last right block ended.

use std::ops::Range;

use super::format::{
    BLOCK_HEADER_BYTES, BadSnapshot, BlockKind, Footer, Header, Item, PAYLOAD_BYTES_MAX, PREFIX_BYTES, Prefix,
    block_length, check_block,
};

/// What a step brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: bytes are missing.
    Starved,
    /// The header is there.
    Header,
    /// A block's items are there.
    Items,
    /// The footer is there: the snapshot is whole.
    Footer,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Where in `buffer` the first byte lies that was not decoded yet.
    at: usize,
    /// Where in the file that byte lies.
    offset: u64,
    header: Option<Header>,
    /// So far.
    blocks: u64,
    items: u64,
    bytes: u64,
    /// Of the last item; nothing may stand before it.
    last_key: Option<Vec<u8>>,
    /// The items of the last step, in `buffer`.
    payload: Range<usize>,
    footer: Option<Footer>,
}

impl Decoder {
    /// The header, once it is there.
    pub(super) fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// The footer, once the snapshot is whole.
    pub(super) fn footer(&self) -> Option<&Footer> {
        self.footer.as_ref()
    }

    /// Where in the file that ends which was decoded so far.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The items of the block that the last step was about.
    pub(super) fn items(&self) -> Items<'_> {
        Items { rest: &self.buffer[self.payload.clone()] }
    }

    /// Takes the bytes that follow in the file.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.payload = 0..0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Forgets the bytes of a block that is not all there, or is not right.
    pub(super) fn forget_undecoded(&mut self) {
        self.buffer.truncate(self.at);
    }

    /// Decodes what comes next.
    pub(super) fn step(&mut self) -> Result<Step, BadSnapshot> {
        self.payload = 0..0;
        match &self.header {
            None => self.step_header(),
            Some(_) if self.footer.is_some() => match self.undecoded() {
                [] => Ok(Step::Starved),
                _ => Err(self.damaged(0, "something follows the footer")),
            },
            Some(header) => {
                let id = header.id;
                let Some(block) = self.whole_block()? else { return Ok(Step::Starved) };
                let kind = check_block(&self.buffer[block.clone()], id, self.blocks + 1);
                let payload = block.start + BLOCK_HEADER_BYTES..block.end;
                let step = match kind.map_err(|what| self.damaged(0, what))? {
                    BlockKind::Items => self.step_items(payload)?,
                    BlockKind::Footer => self.step_footer(payload)?,
                };
                self.blocks += 1;
                self.pass(block.len());
                Ok(step)
            }
        }
    }

    fn step_header(&mut self) -> Result<Step, BadSnapshot> {
        let Some(prefix) = self.undecoded().first_chunk::<PREFIX_BYTES>() else { return Ok(Step::Starved) };
        let prefix = Prefix::decode(prefix)?;
        let Some(bytes) = self.undecoded().get(..prefix.length) else { return Ok(Step::Starved) };
        self.header = Some(Header::decode(&prefix, bytes)?);
        self.pass(prefix.length);
        Ok(Step::Header)
    }

    /// Where in the buffer the next block lies, if all of it is there.
    fn whole_block(&self) -> Result<Option<Range<usize>>, BadSnapshot> {
        let Some(length) = block_length(self.undecoded()) else { return Ok(None) };
        if length > BLOCK_HEADER_BYTES + PAYLOAD_BYTES_MAX {
            return Err(self.damaged(0, "the length of a block makes no sense"));
        }
        Ok((length <= self.undecoded().len()).then(|| self.at..self.at + length))
    }

    fn step_items(&mut self, payload: Range<usize>) -> Result<Step, BadSnapshot> {
        let mut rest = &self.buffer[payload.clone()];
        let mut last_key = self.last_key.as_deref();
        let (mut items, mut bytes) = (0, 0);
        while !rest.is_empty() {
            let at = BLOCK_HEADER_BYTES + payload.len() - rest.len();
            let (item, behind) = Item::decode(rest).ok_or(self.damaged(at, "an item is longer than its block"))?;
            if last_key.is_some_and(|last| last >= item.key) {
                return Err(self.damaged(at, "a key does not come after the one before it"));
            }
            last_key = Some(item.key);
            items += 1;
            bytes += (item.key.len() + item.value.len()) as u64;
            rest = behind;
        }
        if items == 0 {
            return Err(self.damaged(0, "a block of items is empty"));
        }
        self.last_key = last_key.map(<[u8]>::to_vec);
        self.items += items;
        self.bytes += bytes;
        self.payload = payload;
        Ok(Step::Items)
    }

    fn step_footer(&mut self, payload: Range<usize>) -> Result<Step, BadSnapshot> {
        let footer = Footer::decode(&self.buffer[payload]).ok_or(self.damaged(0, "the footer is malformed"))?;
        if (footer.items, footer.bytes) != (self.items, self.bytes) {
            return Err(self.damaged(0, "the footer counts other items than there are"));
        }
        self.footer = Some(footer);
        Ok(Step::Footer)
    }

    fn undecoded(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn pass(&mut self, bytes: usize) {
        self.at += bytes;
        self.offset += bytes as u64;
    }

    /// What is wrong so many bytes behind what was decoded.
    fn damaged(&self, behind: usize, what: &'static str) -> BadSnapshot {
        BadSnapshot::Damaged { offset: self.offset + behind as u64, what }
    }
}

/// The items of a block, in the order of their keys.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let (item, rest) = Item::decode(self.rest)?;
        self.rest = rest;
        Some(item)
    }
}
