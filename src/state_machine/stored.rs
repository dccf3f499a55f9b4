//! What the map keeps of a key: the value and its version in one allocation, which snapshots share.

use raftkv_protocol::types::Index;
use triomphe::{Arc, ThinArc};

/// A value and the index of the entry that wrote it.
#[derive(Clone)]
pub(super) struct Stored(ThinArc<Index, u8>);

// The map keeps many side by side: what each takes decides how many of them share a cache line.
const _: () = assert!(size_of::<Stored>() == size_of::<usize>());

impl Stored {
    /// A copy of the value, of exactly its size.
    pub(super) fn new(version: Index, value: &[u8]) -> Stored {
        Stored(ThinArc::from_header_and_slice(version, value))
    }

    pub(super) fn version(&self) -> Index {
        self.0.header.header
    }

    pub(super) fn value(&self) -> &[u8] {
        &self.0.slice
    }

    /// Writes over the old value where it lies, if it has the new one's length and no snapshot holds it.
    pub(super) fn replace(&mut self, version: Index, value: &[u8]) {
        let is_done = self.0.with_arc_mut(|shared| match Arc::get_mut(shared) {
            Some(old) if old.length() == value.len() => {
                *old.header_mut() = version;
                old.slice_mut().copy_from_slice(value);
                true
            }
            _ => false,
        });
        if !is_done {
            *self = Stored::new(version, value);
        }
    }
}
