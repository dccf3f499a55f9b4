//! The simulated disk: what it loses, and that it loses nothing else.

use std::io::ErrorKind;

use super::disk::{Access, Disk, DiskFile};
use super::simulated_disk::{CrashReport, SimulatedDisk, Survivors};

const BLOCK: usize = 4096;
const SIZE: u64 = 16 * BLOCK as u64;

/// A disk with one durable file of zeros.
fn disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new(7);
    disk.create("file", SIZE).expect("space");
    disk.sync_dir().expect("healthy");
    disk
}

fn place(disk: &SimulatedDisk) -> Box<dyn DiskFile> {
    disk.open("file", Access::Place { size: SIZE }).expect("it is there")
}

/// Writes a block full of this byte.
fn write(file: &mut dyn DiskFile, block: usize, byte: u8) {
    file.write_at((block * BLOCK) as u64, &[byte; BLOCK]).expect("healthy");
}

/// The bytes that the blocks of the file are full of; 255 for a block that is not full of one.
fn blocks(disk: &SimulatedDisk) -> Vec<u8> {
    let bytes = disk.bytes("file");
    bytes.chunks(BLOCK).map(|block| if block.iter().all(|byte| *byte == block[0]) { block[0] } else { 255 }).collect()
}

#[test]
fn a_crash_loses_what_was_not_synced_and_nothing_else() {
    let disk = disk();
    let mut file = place(&disk);
    write(&mut *file, 0, 1);
    write(&mut *file, 1, 1);
    file.sync().expect("healthy");
    write(&mut *file, 1, 2);
    write(&mut *file, 1, 3);
    write(&mut *file, 2, 2);
    assert_eq!(blocks(&disk)[..4], [1, 3, 2, 0]);
    assert_eq!(blocks(&disk.crash(Survivors::None))[..4], [1, 1, 0, 0]);
    let lost = CrashReport { blocks_lost: 2, ..CrashReport::default() };
    assert_eq!(disk.crash(Survivors::None).last_crash(), lost);
    assert_eq!(blocks(&disk.crash(Survivors::All))[..4], [1, 3, 2, 0]);
    file.sync().expect("healthy");
    assert_eq!(blocks(&disk.crash(Survivors::None))[..4], [1, 3, 2, 0]);
    assert_eq!(disk.crash(Survivors::None).last_crash(), CrashReport::default());
}

#[test]
fn a_random_crash_tears_between_blocks_of_its_size() {
    let disk = disk();
    let mut file = place(&disk);
    for block in 0..8 {
        write(&mut *file, block, 9);
    }
    let (mut patterns, mut torn) = (std::collections::BTreeSet::new(), 0);
    for seed in 0..200 {
        let whole = disk.crash(Survivors::Random { seed, block: 4096 });
        patterns.insert(blocks(&whole));
        assert!(!blocks(&whole).contains(&255));
        let report = whole.last_crash();
        assert_eq!((report.blocks_survived + report.blocks_lost, report.blocks_torn), (8, 0));
        let sectors = disk.crash(Survivors::Random { seed, block: 512 });
        assert_eq!(sectors.bytes("file"), disk.crash(Survivors::Random { seed, block: 512 }).bytes("file"));
        let uniform = |sector: &[u8]| sector.iter().all(|byte| *byte == sector[0]);
        assert!(sectors.bytes("file").chunks(512).all(uniform));
        let found = blocks(&sectors).iter().filter(|byte| **byte == 255).count() as u64;
        assert_eq!(sectors.last_crash().blocks_torn, found);
        torn += found;
    }
    assert!(patterns.len() > 100 && torn > 500, "{} patterns, {torn} torn", patterns.len());
}

// museum 38
#[test]
fn a_sync_after_a_failed_one_saves_nothing_of_what_that_lost() {
    let disk = disk();
    let mut file = place(&disk);
    write(&mut *file, 0, 1);
    write(&mut *file, 1, 1);
    disk.fail_sync(0);
    assert_eq!(file.sync().expect_err("EIO").raw_os_error(), Some(libc::EIO));
    write(&mut *file, 1, 2);
    write(&mut *file, 2, 2);
    file.sync().expect("later ones succeed");
    assert_eq!(blocks(&disk)[..3], [1, 2, 2], "the page cache shows all of it");
    assert_eq!(blocks(&disk.crash(Survivors::None))[..3], [0, 2, 2], "written anew is written");
    assert_eq!(blocks(&disk.crash(Survivors::All))[..3], [0, 2, 2]);
    assert_eq!(disk.syncs(), 2);
}

#[test]
fn a_crash_in_place_closes_files_and_a_restart_loses_nothing() {
    let disk = disk();
    let mut file = place(&disk);
    write(&mut *file, 0, 1);
    disk.die_at(1);
    write(&mut *file, 1, 1);
    assert!(!disk.is_off());
    file.write_at(0, &[2; BLOCK]).expect_err("the power goes");
    assert!(disk.is_off());
    file.read_at(0, &mut [0]).expect_err("no power");
    disk.sync_dir().expect_err("no power");
    disk.restart();
    file.sync().expect_err("the process that opened it is gone");
    assert_eq!(blocks(&disk)[..2], [2, 1], "the page cache is still there");
    disk.crash_in_place(Survivors::None);
    assert_eq!(blocks(&disk)[..2], [0, 0], "and was never synced");
    let mut file = place(&disk);
    write(&mut *file, 0, 3);
    file.sync().expect("a new life");
}

#[test]
fn names_change_for_good_with_a_sync_of_the_directory() {
    let disk = disk();
    disk.rename("file", "other").expect("healthy");
    disk.create("new", SIZE).expect("space");
    assert_eq!(disk.names(), ["new", "other"]);
    assert_eq!(disk.crash(Survivors::None).names(), ["file"]);
    let report = disk.crash(Survivors::None).last_crash();
    assert_eq!((report.names_survived, report.names_lost), (0, 2));
    assert_eq!(disk.crash(Survivors::All).names(), ["new", "other"]);
    let some = |seed| disk.crash(Survivors::Random { seed, block: 512 }).names();
    let seen: std::collections::BTreeSet<Vec<String>> = (0..50).map(some).collect();
    assert_eq!(seen.len(), 4, "each for itself: {seen:?}");
    disk.sync_dir().expect("healthy");
    assert_eq!(disk.crash(Survivors::None).names(), ["new", "other"]);
}

#[test]
fn a_truncation_that_is_lost_gives_back_what_it_took() {
    let disk = disk();
    let mut file = place(&disk);
    for block in 0..4 {
        write(&mut *file, block, 1);
    }
    file.sync().expect("healthy");
    write(&mut *file, 1, 2);
    write(&mut *file, 3, 2);
    disk.die_at(0);
    disk.truncate("file", 2 * BLOCK as u64).expect_err("the power goes");
    assert_eq!(blocks(&disk), [1, 2]);
    assert_eq!(blocks(&disk.crash(Survivors::None))[..5], [1, 1, 1, 1, 0]);
    assert_eq!(disk.crash(Survivors::None).bytes("file").len() as u64, SIZE);
    assert_eq!(blocks(&disk.crash(Survivors::All)), [1, 2]);
    disk.restart();
    disk.truncate("file", BLOCK as u64).expect("healthy");
    assert_eq!(blocks(&disk.crash(Survivors::None)), [1], "durable when it returns");
}

#[test]
fn space_is_what_the_files_leave() {
    let disk = disk();
    disk.set_capacity(Some(3 * SIZE));
    disk.create("second", SIZE).expect("space");
    disk.create("third", SIZE).expect("space");
    assert_eq!(disk.create("fourth", SIZE).expect_err("full").kind(), ErrorKind::StorageFull);
    let reader = disk.open("second", Access::Read).expect("it is there");
    disk.remove("second").expect("healthy");
    disk.sync_dir().expect("healthy");
    assert_eq!(disk.used(), 3 * SIZE, "who has it open keeps it");
    reader.read_at(0, &mut [0]).expect("it is still readable");
    drop(reader);
    disk.remove("third").expect("healthy");
    disk.sync_dir().expect("healthy");
    assert_eq!(disk.used(), SIZE);
    disk.create("fourth", SIZE).expect("space");
    disk.set_full(true);
    assert_eq!(disk.create("fifth", 1).expect_err("full").kind(), ErrorKind::StorageFull);
    disk.crash_in_place(Survivors::None);
    assert_eq!(disk.create("fifth", 1).expect_err("a crash makes no space").kind(), ErrorKind::StorageFull);
}

#[test]
fn an_operation_fails_once_and_is_not_carried_out() {
    let disk = disk();
    let mut file = place(&disk);
    disk.fail_at(1);
    write(&mut *file, 0, 1);
    file.sync().expect_err("EIO");
    file.sync().expect("once");
    assert_eq!(blocks(&disk.crash(Survivors::All))[0], 0, "like any sync that failed");
    disk.fail_at(0);
    file.write_at(0, &[2; BLOCK]).expect_err("EIO");
    disk.fail_at(0);
    disk.rename("file", "other").expect_err("EIO");
    assert_eq!((disk.names(), blocks(&disk)[0]), (vec!["file".to_owned()], 1));
    file.write_at(1, &[0; BLOCK]).expect_err("whole blocks only");
    file.write_at(SIZE, &[0; BLOCK]).expect_err("it never grows");
}

#[test]
fn rot_is_in_memory_and_on_the_medium() {
    let disk = disk();
    let mut file = place(&disk);
    write(&mut *file, 1, 4);
    disk.flip("file", BLOCK as u64 + 3, 0);
    assert_eq!(disk.bytes("file")[BLOCK + 3], 5);
    assert_eq!(disk.crash(Survivors::None).bytes("file")[BLOCK + 3], 1);
    disk.truncate_quietly("file", 100);
    assert_eq!(disk.crash(Survivors::None).bytes("file").len(), 100);
    disk.set_unreadable("file", true);
    disk.rename("file", "moved").expect("healthy");
    file.read_at(0, &mut [0]).expect_err("EIO");
    disk.set_unreadable("moved", false);
    file.read_at(0, &mut [0]).expect("once more");
}

#[test]
fn ids_depend_on_the_seed_and_never_repeat() {
    let ids = |disk: &SimulatedDisk| [(); 4].map(|()| disk.fresh_id().expect("an id"));
    let disk = SimulatedDisk::new(3);
    let first = ids(&disk);
    assert_eq!(ids(&SimulatedDisk::new(3)), first);
    assert_ne!(ids(&SimulatedDisk::new(4)), first);
    disk.crash_in_place(Survivors::None);
    let mut all = [first, ids(&disk)].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 8);
}

/// A disk with an empty file that grows, durable like its name.
fn growing() -> (SimulatedDisk, Box<dyn DiskFile>) {
    let disk = SimulatedDisk::new(7);
    disk.create("file", 0).expect("space");
    disk.sync_dir().expect("healthy");
    let file = disk.open("file", Access::Grow).expect("it is there");
    (disk, file)
}

#[test]
fn a_file_that_grows_keeps_what_was_synced() {
    let (disk, mut file) = growing();
    file.write_at(0, &[1; 5000]).expect("healthy");
    file.write_at(5000, &[2; 100]).expect("healthy");
    assert_eq!(disk.crash(Survivors::None).bytes("file"), [0; 0]);
    file.sync().expect("healthy");
    let synced = disk.bytes("file");
    file.write_at(4990, &[3; 20]).expect("healthy");
    file.write_at(5100, &[4; 9000]).expect("healthy");
    assert_eq!((file.size().expect("healthy"), disk.bytes("file").len()), (14_100, 14_100));
    assert_eq!(disk.crash(Survivors::None).bytes("file"), synced);
    assert_eq!(disk.crash(Survivors::All).bytes("file"), disk.bytes("file"));
    disk.fail_sync(0);
    file.sync().expect_err("EIO");
    file.sync().expect("later ones succeed");
    let lost = disk.crash(Survivors::None).bytes("file");
    assert!(lost[..5100] == synced && lost[5100..].iter().all(|byte| *byte == 0), "its length is all that was synced");
    file.write_at(14_101, &[5]).expect_err("a hole");
    disk.open("file", Access::Read).expect("it is there").write_at(14_100, &[5]).expect_err("for reading");
}

#[test]
fn a_file_that_grew_has_any_length_and_zeros_where_a_sector_is_lost() {
    let (disk, mut file) = growing();
    file.write_at(0, &[1; 3000]).expect("healthy");
    file.sync().expect("healthy");
    file.write_at(3000, &[2; 30_000]).expect("healthy");
    let (mut lengths, mut holes) = (std::collections::BTreeSet::new(), 0);
    for seed in 0..200 {
        let bytes = disk.crash(Survivors::Random { seed, block: 512 }).bytes("file");
        assert!((3000..=33_000).contains(&bytes.len()) && bytes[..3000] == [1; 3000]);
        for sector in bytes.get(3072..).unwrap_or(&[]).chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]) && [0, 2].contains(&sector[0]));
            holes += usize::from(sector[0] == 0);
        }
        lengths.insert(bytes.len());
    }
    assert!(lengths.len() > 20 && lengths.contains(&3000) && lengths.contains(&33_000) && holes > 100, "{lengths:?}");
}

#[test]
fn a_file_grows_as_far_as_there_is_space() {
    let (disk, mut file) = growing();
    disk.set_capacity(Some(1000));
    file.write_at(0, &[1; 600]).expect("space");
    assert_eq!(file.write_at(500, &[2; 600]).expect_err("full").kind(), ErrorKind::StorageFull);
    assert_eq!(disk.bytes("file").len(), 1000);
    file.write_at(0, &[3; 1000]).expect("nothing new");
    disk.set_capacity(None);
    disk.set_full(true);
    assert_eq!(file.write_at(1000, &[1]).expect_err("full").kind(), ErrorKind::StorageFull);
}

#[test]
fn an_image_is_made_again_from_its_fates_and_told_in_words() {
    let (disk, mut file) = growing();
    file.write_at(0, &[1; 8192]).expect("healthy");
    disk.rename("file", "other").expect("healthy");
    let (image, fates) = disk.crash_given(Survivors::Random { seed: 3, block: 4096 }, &[true, true, true]);
    let told: Vec<String> = fates.iter().map(|fate| disk.describe(fate)).collect();
    let bytes = ["4096 bytes at 0 of other", "4096 bytes at 4096 of other"];
    assert!(told.ends_with(&bytes.map(str::to_owned)), "{told:?}");
    assert!(told.iter().any(|told| told == "the renaming of file to other"), "{told:?}");
    assert!(fates[..3].iter().all(|fate| fate.survived));
    let given: Vec<bool> = fates.iter().map(|fate| fate.survived).collect();
    let again = disk.crash_given(Survivors::None, &given).0;
    assert_eq!((again.names(), again.bytes("other")), (image.names(), image.bytes("other")));
    let given: Vec<bool> = (0..given.len()).map(|number| number + 1 < given.len()).collect();
    let without_last = disk.crash_given(Survivors::All, &given).0.bytes("other");
    assert!(without_last[..4096] == [1; 4096] && without_last[4096..] == [0; 4096]);
}
