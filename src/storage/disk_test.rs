//! What a real file system does with the files of a log.

use std::fs::OpenOptions;

use super::disk::{Access, Disk, LogIo, RealDisk};

const BLOCK: usize = 4096;
const SIZE: u64 = 16 * BLOCK as u64;

/// What a store into a page that is not there would die of: here the file was cut off behind the log's back, elsewhere the
/// disk does not give the block any more.
#[test]
fn bytes_that_the_file_has_no_page_for_are_an_error() {
    for io in [LogIo::Direct, LogIo::Buffered, LogIo::Map] {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::create(dir.path(), io).expect("a disk");
        disk.create("file", SIZE).expect("space");
        let mut file = disk.open("file", Access::Place { size: SIZE }).expect("it is there");
        let written = vec![7; 2 * BLOCK];
        file.write_at(BLOCK as u64, &written).expect("healthy");
        file.sync().expect("healthy");
        let mut read = vec![0; 2 * BLOCK];
        assert_eq!(file.read_at(BLOCK as u64, &mut read).expect("healthy"), read.len());
        assert!(read == written, "{io:?}");
        if io == LogIo::Map {
            let path = dir.path().join("file");
            OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(SIZE / 2)).expect("a file");
            let error = file.write_at(SIZE / 2 - BLOCK as u64, &written).expect_err("half of it is gone");
            assert_eq!(error.to_string(), "no page of it for the bytes at 28672");
        }
    }
}
