//! A key as the map holds it: short ones in place, long ones shared. Nothing but the bytes decides order and equality.

use std::borrow::Borrow;
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
        if key.len() <= INLINE_BYTES_MAX {
            let mut bytes = [0; INLINE_BYTES_MAX];
            bytes[..key.len()].copy_from_slice(key);
            SmallKey(Repr::Inline { len: key.len() as u8, bytes })
        } else {
            SmallKey(Repr::Shared(Arc::from(key)))
        }
    }
}

// Looking up by `&[u8]` is sound because order and equality are those of the slice.
impl Borrow<[u8]> for SmallKey {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for SmallKey {
    fn eq(&self, other: &SmallKey) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for SmallKey {}

impl PartialOrd for SmallKey {
    fn partial_cmp(&self, other: &SmallKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SmallKey {
    fn cmp(&self, other: &SmallKey) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Debug for SmallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}
