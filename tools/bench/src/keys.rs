//! The keys that a run uses: key `i` is a printable text of fixed width, written in place without an allocation.

use raftkv_protocol::types::Slot;

/// What keys begin with, as far as their size leaves room: a run on a cluster in use touches nobody else's keys.
const PREFIX: &[u8] = b"bench/";

/// The keys `0..count`, each `size` bytes long.
#[derive(Clone, Debug)]
pub struct KeySpace {
    count: u32,
    /// A key with all digits 0.
    template: Vec<u8>,
    prefix_len: usize,
}

impl KeySpace {
    /// `count` keys (at least 1) of `size` bytes; fails if that many do not fit.
    pub fn new(count: u32, size: usize) -> Result<KeySpace, String> {
        let digits = (count.max(1) - 1).max(1).ilog10() as usize + 1;
        if size < digits {
            return Err(format!("{count} keys need a --key-size of at least {digits}"));
        }
        let prefix_len = PREFIX.len().min(size - digits);
        let mut template = vec![b'0'; size];
        template[..prefix_len].copy_from_slice(&PREFIX[..prefix_len]);
        Ok(KeySpace { count, template, prefix_len })
    }

    /// A buffer for [`KeySpace::write`].
    pub fn buffer(&self) -> Vec<u8> {
        self.template.clone()
    }

    /// What all keys begin with.
    pub fn prefix(&self) -> &[u8] {
        &self.template[..self.prefix_len]
    }

    /// Turns `key`, which came from [`KeySpace::buffer`], into key `index`.
    pub fn write(&self, index: u32, key: &mut [u8]) {
        let mut rest = index;
        for digit in key[self.prefix_len..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }

    /// The indexes of the keys of each shard.
    pub fn by_shard(&self, shards: u16) -> Vec<Vec<u32>> {
        let mut sets = vec![Vec::new(); usize::from(shards)];
        let mut key = self.buffer();
        for index in 0..self.count {
            self.write(index, &mut key);
            sets[usize::from(Slot::of(&key).shard(shards).0)].push(index);
        }
        sets
    }
}
