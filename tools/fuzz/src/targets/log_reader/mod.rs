//! Damaged directories of a log: what a start finds after torn writes, rot, lost and misplaced blocks and files.
//!
//! The directories were written by the log itself (`image`). An input chooses one and says what happens to it
//! (`damage`); what must come of that is worked out from the undamaged bytes and never from a checksum (`verdict`):
//! the log is refused with file and offset, or holds exactly what it held after some batch, and never less than what
//! the headers that are left prove durable. Walking the same directory for people shows no entry that was never written.
//!
//! An input may also *forge*: change fields and repair the checksums. Of that nobody can know the truth, but nothing may
//! panic, and nothing may allocate much more than the files hold.

mod damage;
mod directory;
mod image;
mod recorder;
mod verdict;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use raftkv::storage::disk::Disk;
use raftkv::storage::inspect::{self, Item};
use raftkv::storage::record::Record;
use raftkv::storage::{self, LogError, RecoveredShard};
use raftkv_protocol::types::ShardId;

use crate::allocations;
use crate::choices::Choices;
use crate::feedback::{Feedback, magnitude};
use crate::random::mix;

use directory::Directory;
use image::{IMAGES, Image};
use verdict::Expected;

/// What a log holds.
pub type Contents = BTreeMap<ShardId, RecoveredShard>;

/// A few times what the files hold, and the headers and names besides.
const ALLOCATED_FACTOR: usize = 4;
const ALLOCATED_CONSTANT: usize = 64 << 10;
/// Errors that begin with so many same letters are one to the feedback.
const WORDS_TOLD_APART: usize = 30;

thread_local! {
    /// One directory for each image, undone after each run. Empty while it is in use, also if that ended in a panic.
    static DIRECTORIES: RefCell<Vec<Option<Directory>>> = const { RefCell::new(Vec::new()) };
}

/// The target.
pub fn run(data: &[u8], feedback: &mut Feedback) {
    run_with(storage::check, data, feedback);
}

/// The same with another reader.
pub fn run_with<R>(read: R, data: &[u8], feedback: &mut Feedback)
where
    R: Fn(&dyn Disk) -> Result<Contents, LogError>,
{
    let mut choices = Choices::new(data);
    let number = choices.below(IMAGES.len() as u64) as usize;
    let image = &IMAGES[number];
    let taken = DIRECTORIES.with_borrow_mut(|kept| {
        kept.resize_with(IMAGES.len(), || None);
        kept[number].take()
    });
    let mut directory = taken.unwrap_or_else(|| Directory::new(image));
    while !choices.is_empty() {
        damage::apply(&mut directory, image, &mut choices, feedback);
    }
    check(&read, image, &directory, feedback);
    directory.restore(image);
    DIRECTORIES.with_borrow_mut(|kept| kept[number] = Some(directory));
}

fn check(
    read: &impl Fn(&dyn Disk) -> Result<Contents, LogError>,
    image: &Image,
    directory: &Directory,
    feedback: &mut Feedback,
) {
    let files = directory.files();
    let allowed = ALLOCATED_FACTOR * files.bytes() + ALLOCATED_CONSTANT;
    let found = allocations::at_most(allowed, || read(files));
    tell(&found, feedback);
    match verdict::expected(image, directory) {
        Expected::Anything => {}
        Expected::Refused => assert!(found.is_err(), "damage below what is proved durable was not told"),
        Expected::Batches(batches) => match &found {
            Ok(found) => {
                assert!(*found == image.states[batches], "other contents than after batch {batches}: {found:?}")
            }
            Err(error) => panic!("refused, though all that is proved durable is right: {error}"),
        },
        Expected::RefusedOrOnce => {
            if let Ok(found) = &found {
                assert!(image.states.contains(found), "contents that the log never had: {found:?}");
            }
        }
    }
    let shown = allocations::at_most(allowed, || walk(image, directory));
    feedback.saw_with(4, magnitude(shown));
}

/// An error is one line and names a file, and where in it if that can be said.
fn tell(found: &Result<Contents, LogError>, feedback: &mut Feedback) {
    match found {
        Ok(contents) => {
            let entries: usize = contents.values().map(|shard| shard.entries.len()).sum();
            feedback.saw_with(2, magnitude(entries as u64) << 8 | contents.len() as u64);
        }
        Err(LogError(line)) => {
            assert!(!line.contains('\n'), "more than a line: {line}");
            assert!(line.contains("segment-"), "no file is named: {line}");
            let is_placed = line.contains(" at offset ") || line.contains("incomplete") || line.contains("cannot read");
            assert!(is_placed, "no place is named: {line}");
            // Without the numbers, of which there is no end.
            let words = line.split_once(" at offset ").map_or(line.as_str(), |(_, rest)| rest);
            let letters = words.bytes().filter(u8::is_ascii_alphabetic).take(WORDS_TOLD_APART);
            feedback.saw_with(3, letters.fold(0, |hash, letter| mix(hash ^ u64::from(letter))));
        }
    }
}

/// How many entries the walk shows. Unless there are forgeries, each was written once.
fn walk(image: &Image, directory: &Directory) -> u64 {
    let mut shown = 0;
    let is_forged = directory.is_forged();
    let walked = inspect::inspect_disk(directory.files(), |item| {
        if let Item::Record { record: Record::Entry { shard, id, body, .. }, .. } = item {
            assert!(
                is_forged || image.wrote(*shard, *id, body),
                "shows {id} of shard {shard}, which was never written"
            );
            shown += 1;
        }
        ControlFlow::Continue(())
    });
    walked.expect("the directory can be listed");
    shown
}

/// Every image as it is, and each kind of damage once.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let images = 0..IMAGES.len() as u8;
    let untouched = images.clone().map(|image| vec![image]);
    let damaged = images.flat_map(|image| (0..damage::KINDS).map(move |kind| vec![image, kind, 1, 1, 9, 2, 3]));
    untouched.chain(damaged).collect()
}
