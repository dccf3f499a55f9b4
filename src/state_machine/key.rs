//! A key as the map holds it: short ones in place, long ones shared. Nothing but the bytes decides the order.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// The longest key that needs no allocation: what two machine words, a length and a tag leave room for in 24 bytes.
pub const INLINE_BYTES_MAX: usize = 22;

/// An owned key of any length. Cloning never copies more than 24 bytes.
#[derive(Clone)]
pub struct SmallKey(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared(Arc<[u8]>),
}

// The map keeps many keys side by side: what each takes decides how many of them share a cache line.
const _: () = assert!(size_of::<SmallKey>() == 24);
const _: () = assert!(INLINE_BYTES_MAX <= u8::MAX as usize);

impl SmallKey {
    /// The key's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for SmallKey {
    fn from(key: &[u8]) -> SmallKey {
        SmallKey(match padded(key) {
            Some(bytes) => Repr::Inline { len: key.len() as u8, bytes },
            None => Repr::Shared(Arc::from(key)),
        })
    }
}

/// A key to look for, made ready to be compared with many.
pub struct Probe<'a> {
    bytes: &'a [u8],
    /// As the map would hold it in place, if it would.
    padded: Option<[u8; INLINE_BYTES_MAX]>,
}

impl<'a> Probe<'a> {
    /// Copies a short key.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Probe<'a> {
        Probe { bytes, padded: padded(bytes) }
    }

    /// The key.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether a key of the map comes before this one, is it, or comes behind it. Two short ones are compared with
    /// their padding, which takes no call, as the length is known: it is the least that can follow a key.
    #[inline]
    #[must_use]
    pub fn order_of(&self, key: &SmallKey) -> Ordering {
        match (&key.0, &self.padded) {
            (Repr::Inline { len, bytes }, Some(padded)) => {
                bytes.cmp(padded).then_with(|| usize::from(*len).cmp(&self.bytes.len()))
            }
            _ => key.as_bytes().cmp(self.bytes),
        }
    }
}

/// A short key and the zeros behind it.
fn padded(key: &[u8]) -> Option<[u8; INLINE_BYTES_MAX]> {
    let mut padded = [0; INLINE_BYTES_MAX];
    padded.get_mut(..key.len())?.copy_from_slice(key);
    Some(padded)
}

impl fmt::Debug for SmallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}
