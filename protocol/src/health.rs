//! How a node's disk does, and whether a replica is like the others.

use std::fmt;

use crate::frame::DecodeError;
use crate::types::Index;
use crate::wire::{Reader, Writer};

/// How the disk does that a node's logs are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DiskHealth {
    /// Well, and has been for a while.
    #[default]
    Healthy = 0,
    /// Well again, but not for long.
    Recovering = 1,
    /// Syncs take longer than they may.
    Slow = 2,
    /// There is no room for ordinary writes.
    Full = 3,
}

impl DiskHealth {
    /// A state that has no name here comes from a newer node: something is the matter with that disk.
    #[must_use]
    pub fn from_u8(number: u8) -> DiskHealth {
        match number {
            0 => DiskHealth::Healthy,
            1 => DiskHealth::Recovering,
            3 => DiskHealth::Full,
            _ => DiskHealth::Slow,
        }
    }

    /// Whether its node should lead nothing that another node can.
    #[must_use]
    pub fn is_bad(self) -> bool {
        self >= DiskHealth::Slow
    }

    /// The name in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DiskHealth::Healthy => "healthy",
            DiskHealth::Recovering => "recovering",
            DiskHealth::Slow => "slow",
            DiskHealth::Full => "full",
        }
    }
}

impl fmt::Display for DiskHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a replica does not serve its shard: its state is another than that of others at the same index, or than its own
/// hash says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// What the replicas' hashes say of this one.
    pub verdict: Verdict,
    /// The last index at which this replica was like a majority, as far as it knows since its start; 0 if none. Of a corrupt
    /// one, the last as of which its memory was found to be right.
    pub agreed: Index,
    /// The first index at which it is not; of a corrupt one, that at which it was looked at.
    pub differs: Index,
    /// Its hash there; of a corrupt one, that of what is in its memory.
    pub own: u128,
    /// The majority's, or some other's where there is no majority; of a corrupt one, what its hash should have been.
    pub other: u128,
}

/// Who is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// This replica: a majority has another state.
    Diverged = 1,
    /// Nobody knows: no majority has the same state.
    Undecided = 2,
    /// This replica: what is in its memory is not what it has put there.
    Corrupt = 3,
}

impl Verdict {
    /// The name in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Diverged => "diverged",
            Verdict::Undecided => "undecided",
            Verdict::Corrupt => "corrupt",
        }
    }

    fn from_u8(number: u8) -> Verdict {
        let known = [Verdict::Diverged, Verdict::Corrupt].into_iter().find(|verdict| *verdict as u8 == number);
        known.unwrap_or(Verdict::Undecided)
    }
}

impl Divergence {
    /// Verdict 0 if there is none.
    pub(crate) fn put(divergence: Option<&Divergence>, out: &mut Vec<u8>) {
        out.put_u8(divergence.map_or(0, |divergence| divergence.verdict as u8));
        out.put_u64(divergence.map_or(0, |divergence| divergence.agreed.0));
        out.put_u64(divergence.map_or(0, |divergence| divergence.differs.0));
        out.put_u128(divergence.map_or(0, |divergence| divergence.own));
        out.put_u128(divergence.map_or(0, |divergence| divergence.other));
    }

    /// Verdict 0, or nothing at all: there is no divergence. A verdict that has no name here is read as undecided: the
    /// replica does not serve.
    pub(crate) fn read(fields: &mut Reader<'_>) -> Result<Option<Divergence>, DecodeError> {
        if fields.rest().is_empty() {
            return Ok(None);
        }
        let number = fields.u8("verdict")?;
        let divergence = Divergence {
            verdict: Verdict::from_u8(number),
            agreed: Index(fields.u64("agreed")?),
            differs: Index(fields.u64("differs")?),
            own: fields.u128("own hash")?,
            other: fields.u128("other hash")?,
        };
        Ok((number != 0).then_some(divergence))
    }
}

impl fmt::Display for Divergence {
    /// As in `diverged after index 1024, at index 2048: hash … here, … elsewhere`, or `corrupt after index 1024, at index
    /// 2048: hash … in memory, … expected`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Divergence { verdict, agreed, differs, own, other } = self;
        let name = verdict.name();
        if *verdict == Verdict::Corrupt {
            return write!(
                f,
                "{name} after index {agreed}, at index {differs}: hash {own:032x} in memory, {other:032x} expected"
            );
        }
        write!(f, "{name} after index {agreed}, at index {differs}: hash {own:032x} here, {other:032x} elsewhere")
    }
}
