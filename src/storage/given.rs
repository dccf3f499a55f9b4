//! Blocks that the disk does not give: a bad sector is damage like any other, to these bytes alone.
//!
//! A block whose read fails with an input/output error, twice, is taken as if it held zeros, which no checksum takes for
//! what was written, and is told. Only that error says something about bytes: of any other (no right to read, no memory, no
//! more open files) nothing follows for what the file holds. Nor does anything if the disk gives nothing of the file at all:
//! then it is the disk that is away, and may come back. Both stay errors.

use std::io;

use super::batch::BLOCK_BYTES;
use super::disk::DiskFile;

/// Of a file, so many blocks are tried before it is said that the disk gives nothing of it.
const BLOCKS_TRIED: u64 = 16;

/// Whether an error says that the disk cannot read these bytes.
fn is_of_sector(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO)
}

/// Whether an error says that these bytes of the file are lost, and not that the disk is away.
pub(super) fn is_bad_sector(file: &dyn DiskFile, error: &io::Error) -> bool {
    is_of_sector(error) && gives_something(file)
}

/// Reads like [`DiskFile::read_at`], but for bad sectors: their blocks read as zeros, and `bad` is told where each begins.
pub(super) fn read_given(
    file: &dyn DiskFile,
    at: u64,
    buffer: &mut [u8],
    mut bad: impl FnMut(u64, &io::Error),
) -> io::Result<usize> {
    match file.read_at(at, buffer) {
        Err(error) if is_bad_sector(file, &error) => {}
        read => return read,
    }
    let wanted = file.size()?.saturating_sub(at).min(buffer.len() as u64) as usize;
    let mut filled = 0;
    while filled < wanted {
        let offset = at + filled as u64;
        let block_end = (offset + 1).next_multiple_of(BLOCK_BYTES) - at;
        let piece = &mut buffer[filled..wanted.min(block_end as usize)];
        match file.read_at(offset, piece) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if is_of_sector(&error) => {
                bad(offset - offset % BLOCK_BYTES, &error);
                piece.fill(0);
                filled += piece.len();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads like [`DiskFile::read_at`], and once more after an input/output error: one that passes costs nothing.
pub(super) fn read_again(file: &dyn DiskFile, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    match file.read_at(at, buffer) {
        Err(error) if is_of_sector(&error) => file.read_at(at, buffer),
        read => read,
    }
}

/// Tries blocks all over a file.
fn gives_something(file: &dyn DiskFile) -> bool {
    let Ok(size) = file.size() else { return false };
    let blocks = size.div_ceil(BLOCK_BYTES);
    let step = blocks.div_ceil(BLOCKS_TRIED).max(1);
    let mut byte = [0; 1];
    (0..blocks).step_by(step as usize).any(|block| file.read_at(block * BLOCK_BYTES, &mut byte).is_ok())
}
