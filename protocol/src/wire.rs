//! Fields: how numbers, byte strings, text and lists lie inside a payload.
//!
//! Knows no message. [`Reader`] never reads past what arrived, never panics and never allocates; a list's count is
//! checked against the bytes that are left before anybody reserves memory for it.

use byteorder::{ByteOrder, LE};

use crate::frame::DecodeError;
use crate::types::{EntryId, Index, Term};

/// The longest text that is sent, in bytes. Text is for people and for addresses: a longer one is cut short.
pub(crate) const TEXT_LEN_MAX: usize = 4096;

/// Appends fields to a frame under construction.
pub(crate) trait Writer {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_u128(&mut self, value: u128);
    /// A byte string with a u16 length. Panics if it is longer: whoever takes keys from a user checks the limit first.
    fn put_bytes16(&mut self, bytes: &[u8]);
    /// A byte string with a u32 length.
    fn put_bytes32(&mut self, bytes: &[u8]);
    /// UTF-8 with a u16 length, cut after the last whole character within [`TEXT_LEN_MAX`].
    fn put_text(&mut self, text: &str);
    /// A list's count.
    fn put_count(&mut self, count: usize);
    /// A list element that may grow: preceded by its own length as u16, so that readers can skip what they do not know.
    fn put_element(&mut self, fields: impl FnOnce(&mut Self));
}

impl Writer for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u128(&mut self, value: u128) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bytes16(&mut self, bytes: &[u8]) {
        self.put_u16(u16::try_from(bytes.len()).expect("keys are checked against their limit before they are encoded"));
        self.extend_from_slice(bytes);
    }

    fn put_bytes32(&mut self, bytes: &[u8]) {
        self.put_u32(
            u32::try_from(bytes.len()).expect("values are checked against their limit before they are encoded"),
        );
        self.extend_from_slice(bytes);
    }

    fn put_text(&mut self, text: &str) {
        let end = (0..=text.len().min(TEXT_LEN_MAX)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        self.put_bytes16(&text.as_bytes()[..end]);
    }

    fn put_count(&mut self, count: usize) {
        self.put_u32(u32::try_from(count).expect("a list that fits into memory here has fewer than 2^32 elements"));
    }

    fn put_element(&mut self, fields: impl FnOnce(&mut Self)) {
        let at = self.len();
        self.put_u16(0);
        fields(self);
        let len =
            u16::try_from(self.len() - at - 2).expect("an element is a few numbers and one text of at most 4 KiB");
        LE::write_u16(&mut self[at..], len);
    }
}

/// Takes fields off the front of a payload.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Reader<'a> {
        Reader { rest: payload }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated(field))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(1, field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(LE::read_u16(self.take(2, field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(LE::read_u32(self.take(4, field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(LE::read_u64(self.take(8, field)?))
    }

    pub(crate) fn u128(&mut self, field: &'static str) -> Result<u128, DecodeError> {
        Ok(LE::read_u128(self.take(16, field)?))
    }

    /// 0 or 1; anything else is refused, so that no damaged byte can grant a vote.
    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid(field)),
        }
    }

    pub(crate) fn bytes16(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(field)?;
        self.take(usize::from(len), field)
    }

    pub(crate) fn bytes32(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32(field)?;
        // A length beyond the address space is also beyond what arrived.
        self.take(usize::try_from(len).unwrap_or(usize::MAX), field)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes16(field)?).map_err(|_| DecodeError::Invalid(field))
    }

    /// A list's count, believed only if so many elements of at least `element_len_min` bytes can still follow.
    pub(crate) fn count(&mut self, element_len_min: usize, field: &'static str) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if count > self.rest.len() / element_len_min {
            return Err(DecodeError::Truncated(field));
        }
        Ok(count)
    }

    /// The fields of a list element that carries its own length.
    pub(crate) fn element(&mut self, field: &'static str) -> Result<Reader<'a>, DecodeError> {
        self.bytes16(field).map(Reader::new)
    }
}

/// Index first, then term, as it is printed.
pub(crate) fn put_entry_id(out: &mut Vec<u8>, id: EntryId) {
    out.put_u64(id.index.0);
    out.put_u64(id.term.0);
}

pub(crate) fn read_entry_id(fields: &mut Reader<'_>, field: &'static str) -> Result<EntryId, DecodeError> {
    Ok(EntryId { index: Index(fields.u64(field)?), term: Term(fields.u64(field)?) })
}

/// A list whose elements take at least `element_len_min` bytes each.
pub(crate) fn read_list<'a, T>(
    fields: &mut Reader<'a>,
    element_len_min: usize,
    field: &'static str,
    mut element: impl FnMut(&mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let count = fields.count(element_len_min, field)?;
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push(element(fields)?);
    }
    Ok(list)
}
