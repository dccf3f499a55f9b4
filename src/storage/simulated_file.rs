//! A file as a crash sees it, for the simulated disk.
//!
//! A file has *live* bytes, which everybody reads, and for each block that was written and not synced the bytes that
//! are on the medium in its place. A file that grew since it was synced may have any length between that of then and the
//! present one, and zeros where a block did not get there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::batch::BLOCK_BYTES;

pub(super) const BLOCK: usize = BLOCK_BYTES as usize;

/// What survives a crash of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    None,
    /// Everything, but for what a failed sync lost.
    All,
    /// Any subset of the blocks of this size, and of the changes of names.
    Random {
        /// Decides which.
        seed: u64,
        /// 512 or 4,096.
        block: usize,
    },
}

/// What a crash did to blocks of 4,096 bytes whose bytes on the medium were others than the live ones, and to changes
/// of names that were not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrashReport {
    /// Blocks that had reached the medium.
    pub blocks_survived: u64,
    /// Blocks of which nothing had.
    pub blocks_lost: u64,
    /// Blocks of which a part had.
    pub blocks_torn: u64,
    /// Names that had changed for good.
    pub names_survived: u64,
    /// Names that changed back.
    pub names_lost: u64,
}

/// A small, good enough generator (splitmix64). It draws no number twice.
#[derive(Clone, Debug, Default)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What a crash decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stake {
    /// Which change of a name, counted from the oldest that was not synced.
    Name(usize),
    /// The length that a file has grown or shrunk to.
    Length { file: u64 },
    /// So many bytes that were written.
    Bytes { file: u64, at: usize, length: usize },
}

/// Decides of each thing that was not synced whether it survives.
pub(super) struct Lottery {
    survivors: Survivors,
    /// Decided already, in the order in which it is asked.
    given: Vec<bool>,
    /// What was decided so far.
    pub(super) drawn: Vec<(Stake, bool)>,
    random: Random,
    /// Of eight, how many survive: all the same chance would hardly ever lose a single block of a large batch.
    odds: u64,
}

impl Lottery {
    pub(super) fn new(survivors: Survivors, given: &[bool]) -> Lottery {
        let mut random = Random(match survivors {
            Survivors::Random { seed, .. } => seed,
            Survivors::None | Survivors::All => 0,
        });
        let odds = 1 + random.below(7);
        Lottery { survivors, given: given.to_vec(), drawn: Vec::new(), random, odds }
    }

    pub(super) fn survives(&mut self, stake: Stake) -> bool {
        // Drawn in any case, so that what is given changes nothing behind it.
        let chance = match self.survivors {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::Random { .. } => self.random.below(8) < self.odds,
        };
        let survives = self.given.get(self.drawn.len()).copied().unwrap_or(chance);
        self.drawn.push((stake, survives));
        survives
    }

    /// How long a file is that had one length on the medium and has another now.
    fn length(&mut self, file: u64, durable: usize, live: usize) -> usize {
        if durable == live || self.survives(Stake::Length { file }) {
            live
        } else if durable < live && self.survives(Stake::Length { file }) {
            durable + self.random.below((live - durable) as u64) as usize
        } else {
            durable
        }
    }

    /// What survives or not as a whole.
    fn grain(&self) -> usize {
        match self.survivors {
            Survivors::None | Survivors::All => BLOCK,
            Survivors::Random { block, .. } => block,
        }
    }
}

/// A block that was written after the last sync.
#[derive(Clone, Debug)]
struct Unsynced {
    /// What is on the medium in its place.
    durable: Vec<u8>,
    /// A sync of it failed: it counts as clean, and no later sync writes it unless it is written anew.
    given_up: bool,
}

#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) live: Vec<u8>,
    pub(super) durable_length: usize,
    /// By number of the block.
    unsynced: BTreeMap<usize, Unsynced>,
    pub(super) unreadable: bool,
    /// By number.
    pub(super) bad_blocks: BTreeSet<usize>,
    /// Every open file has one too.
    pub(super) open: Arc<()>,
}

impl File {
    pub(super) fn new(live: Vec<u8>, durable_length: usize) -> File {
        File {
            live,
            durable_length,
            unsynced: BTreeMap::new(),
            unreadable: false,
            bad_blocks: BTreeSet::new(),
            open: Arc::new(()),
        }
    }

    fn block(&self, block: usize) -> &[u8] {
        let length = self.live.len();
        &self.live[length.min(block * BLOCK)..length.min((block + 1) * BLOCK)]
    }

    /// Remembers what is on the medium in the place of these bytes, which are about to change.
    fn remember(&mut self, start: usize, end: usize) {
        for block in start / BLOCK..end.div_ceil(BLOCK) {
            let durable = (!self.unsynced.contains_key(&block)).then(|| self.block(block).to_vec());
            match self.unsynced.entry(block) {
                Entry::Vacant(clean) => {
                    clean.insert(Unsynced { durable: durable.unwrap_or_default(), given_up: false });
                }
                Entry::Occupied(mut dirty) => dirty.get_mut().given_up = false,
            }
        }
    }

    /// Writes at an offset up to the file's end, which grows if it must.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.remember(at, end);
        self.live.resize(self.live.len().max(end), 0);
        self.live[at..end].copy_from_slice(bytes);
    }

    pub(super) fn truncate(&mut self, length: usize) {
        if length < self.live.len() {
            self.remember(length, self.live.len());
            self.live.truncate(length);
        }
    }

    pub(super) fn sync(&mut self) {
        self.unsynced.retain(|_, unsynced| unsynced.given_up);
        self.durable_length = self.live.len();
    }

    pub(super) fn fail_sync(&mut self) {
        self.unsynced.values_mut().for_each(|unsynced| unsynced.given_up = true);
    }

    /// Changes a bit, in memory and on the medium alike.
    pub(super) fn flip(&mut self, at: usize, mask: u8) {
        self.live[at] ^= mask;
        if let Some(rotten) = self.unsynced.get_mut(&(at / BLOCK)).and_then(|block| block.durable.get_mut(at % BLOCK)) {
            *rotten ^= mask;
        }
    }

    /// Live and durable are the same from now on.
    pub(super) fn settle(&mut self) {
        self.unsynced.clear();
        self.durable_length = self.live.len();
    }

    /// `number` is the file's own.
    pub(super) fn crash(&mut self, number: u64, lottery: &mut Lottery, report: &mut CrashReport) {
        let written = self.live.len();
        self.live.resize(lottery.length(number, self.durable_length, written), 0);
        for (block, Unsynced { mut durable, given_up }) in std::mem::take(&mut self.unsynced) {
            let start = block * BLOCK;
            // Where the file has grown, nothing but its length may be on the medium.
            let there = self.live.len().saturating_sub(start).min(BLOCK);
            durable.resize(durable.len().max(there), 0);
            let end = self.live.len().min(start + durable.len());
            let only_durable = start.max(written.min(end));
            if only_durable < end {
                self.live[only_durable..end].copy_from_slice(&durable[only_durable - start..end - start]);
            }
            let pieces = self.live.get_mut(start..end.min(written)).unwrap_or_default().chunks_mut(lottery.grain());
            let (mut survived, mut lost) = (false, false);
            let offsets = (start..).step_by(lottery.grain());
            for ((live, durable), at) in pieces.zip(durable.chunks(lottery.grain())).zip(offsets) {
                let durable = &durable[..live.len()];
                if *live == *durable {
                    continue;
                }
                if !given_up && lottery.survives(Stake::Bytes { file: number, at, length: live.len() }) {
                    survived = true;
                } else {
                    lost = true;
                    live.copy_from_slice(durable);
                }
            }
            report.blocks_survived += u64::from(survived && !lost);
            report.blocks_lost += u64::from(lost && !survived);
            report.blocks_torn += u64::from(lost && survived);
        }
        self.settle();
        self.open = Arc::new(());
    }
}
