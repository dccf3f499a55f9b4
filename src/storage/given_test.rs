//! Reads that the disk refuses: which are damage to bytes, and which say nothing about them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;

use super::blemish::Spot;
use super::disk::DiskFile;
use super::given::read_given;
use super::inspect::{Item, inspect_disk};
use super::salvage_test::{SHARDS, contents, is_prefix, long, rewrite, salvage, segments, small};
use super::simulated_disk::{SimulatedDisk, Survivors};
use super::{Newest, check, check_closely, damage, newest};

const BLOCK: usize = super::batch::BLOCK_BYTES as usize;

/// A file whose every byte is 7, and some blocks of which cannot be read, for this reason.
struct Spoilt {
    size: u64,
    bad: BTreeSet<u64>,
    errno: i32,
    /// So many reads fail before the blocks are good again.
    failures: RefCell<u32>,
}

impl DiskFile for Spoilt {
    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.size.saturating_sub(offset) as usize);
        let blocks = offset / BLOCK as u64..(offset + length as u64).div_ceil(BLOCK as u64);
        let mut failures = self.failures.borrow_mut();
        if *failures > 0 && self.bad.range(blocks).next().is_some() {
            *failures -= 1;
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        buffer[..length].fill(7);
        Ok(length)
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        unreachable!("it is read only")
    }

    fn sync(&mut self) -> io::Result<()> {
        unreachable!("it is read only")
    }
}

/// Reads all of a file of ten blocks and a half: how many bytes came, those that are not 7, and the blocks that are told.
fn read(bad: &[u64], errno: i32, failures: u32) -> io::Result<(usize, usize, Vec<u64>)> {
    let size = 10 * BLOCK as u64 + 2_000;
    let file = Spoilt { size, bad: bad.iter().copied().collect(), errno, failures: RefCell::new(failures) };
    let mut buffer = vec![9; 12 * BLOCK];
    let mut told = Vec::new();
    let length = read_given(&file, 0, &mut buffer, |at, _| told.push(at / BLOCK as u64))?;
    Ok((length, buffer[..length].iter().filter(|byte| **byte != 7).count(), told))
}

#[test]
fn bad_sectors_read_as_zeros_and_are_told() {
    let length = 10 * BLOCK + 2_000;
    assert_eq!(read(&[], libc::EIO, u32::MAX).expect("readable"), (length, 0, vec![]));
    assert_eq!(read(&[3, 10], libc::EIO, u32::MAX).expect("readable"), (length, BLOCK + 2_000, vec![3, 10]));
    assert_eq!(read(&[3], libc::EIO, 1).expect("the second try"), (length, 0, vec![]), "it came after all");
}

/// What says nothing about bytes: another error, and a disk that gives nothing at all.
#[test]
fn other_errors_and_a_disk_that_is_away_stay_errors() {
    for errno in [libc::EACCES, libc::ENOMEM, libc::EMFILE, libc::ESTALE] {
        assert_eq!(read(&[3], errno, u32::MAX).expect_err("no right to read").raw_os_error(), Some(errno));
    }
    let all: Vec<u64> = (0..11).collect();
    assert_eq!(read(&all, libc::EIO, u32::MAX).expect_err("it is away").raw_os_error(), Some(libc::EIO));
    let disk = long();
    disk.set_unreadable(&segments(&disk)[1], true);
    assert!(damage(&disk).is_err(), "nobody knows");
}

/// Each block of each segment of a log in turn.
fn each_bad_block(healthy: &SimulatedDisk, mut look: impl FnMut(&SimulatedDisk, &str, usize)) {
    for segment in segments(healthy) {
        for block in 0..healthy.bytes(&segment).len() / BLOCK {
            let disk = healthy.crash(Survivors::None);
            disk.spoil_block(&segment, block);
            look(&disk, &segment, block);
        }
    }
}

/// Like bytes that are others: what comes before is kept, the place is named, and the node may go on with what is left.
/// Where nothing is lost with the block the log is taken as it is.
// museum 42
#[test]
fn a_bad_sector_is_damage_to_its_bytes_alone() {
    for healthy in [small(), long()] {
        let whole = contents(&healthy);
        let Newest { name: newest, durable_upto, .. } = newest(&healthy).expect("healthy").expect("a log");
        let (mut lossless, mut damaged) = (0, 0);
        each_bad_block(&healthy, |disk, segment, block| {
            let place = format!("{segment}, block {block}");
            let Some((line, left)) = salvage(disk) else {
                lossless += 1;
                let is_proved = segment != newest || ((block * BLOCK) as u64) < durable_upto;
                assert!(is_proved, "{place}: it may have held a batch, and what proves it");
                let (shards, blemishes) = check_closely(disk).expect("nothing is lost");
                assert!(shards.iter().all(|(shard, found)| *found == whole[shard]), "{place}");
                let told = |offset, spot| offset / BLOCK as u64 == block as u64 && spot == Spot::BadSector;
                assert!(blemishes.iter().any(|blemish| told(blemish.offset, blemish.spot)), "{place}: {blemishes:?}");
                return;
            };
            damaged += 1;
            assert!(line.contains(&format!("/simulated/{segment} at offset ")), "{place}: {line}");
            assert!(line.contains("the disk does not give") && line.contains("Input/output error"), "{place}: {line}");
            check(disk).expect_err("not taken as it is");
            // Votes are there twice, in two blocks, and again in the next segment.
            for shard in SHARDS {
                assert!(is_prefix(&left[&shard], &whole[&shard]) || left[&shard].entries.is_empty(), "{place}");
                let is_sealed = segment != newest;
                assert!(!is_sealed || left[&shard].hard_state == whole[&shard].hard_state, "{place}: shard {shard}");
            }
            let anew = SimulatedDisk::new(11);
            let salvaged = rewrite(disk, &anew).expect("the rest can be read").expect("it is damaged");
            assert_eq!((salvaged.damage, contents(&anew)), (line, left), "{place}");
        });
        assert!(damaged > 8 && lossless > 0, "{damaged} damaged, {lossless} not");
    }
}

/// The walk for people goes on with the next segment.
#[test]
fn a_walk_shows_what_it_can_of_a_log_with_a_bad_sector() {
    let disk = long();
    let before = segments(&disk).len();
    disk.spoil_block(&segments(&disk)[1], 4);
    let mut ends = BTreeMap::new();
    let walked = inspect_disk(&disk, |item| {
        if let Item::End { path, reason, .. } = item {
            ends.insert(path.to_owned(), format!("{reason:?}"));
        }
        ControlFlow::Continue(())
    });
    walked.expect("readable");
    assert_eq!(ends.len(), before);
    assert_eq!(ends.values().filter(|reason| reason.contains("Input/output error")).count(), 1, "{ends:?}");
}
