//! A directory that is damaged, read and repaired again, with as little copying as that takes.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use raftkv::storage::disk::{Access, Disk, DiskFile};
use raftkv::storage::segment::{FileState, segment_name};

use super::image::Image;
use super::recorder::read_at;

/// The files as a reader sees them. Nothing can be changed through it.
pub(super) struct Files {
    /// Sequence number and slot of every segment's name.
    names: Vec<(u64, usize)>,
    slots: Vec<Arc<Vec<u8>>>,
}

impl Files {
    /// Of all names.
    pub(super) fn bytes(&self) -> usize {
        self.names.iter().map(|(_, slot)| self.slots[*slot].len()).sum()
    }
}

/// See the module.
pub(super) struct Directory {
    files: Files,
    /// What differs from the image, for each slot: everything that does lies within.
    dirty: Vec<Option<Range<usize>>>,
    is_renamed: bool,
    is_forged: bool,
}

impl Directory {
    pub(super) fn new(image: &Image) -> Directory {
        let slots: Vec<_> = image.segments.iter().map(|segment| Arc::new(segment.bytes.clone())).collect();
        let dirty = vec![None; slots.len()];
        let files = Files { names: names(image), slots };
        Directory { files, dirty, is_renamed: false, is_forged: false }
    }

    /// Makes it the image again.
    pub(super) fn restore(&mut self, image: &Image) {
        for (slot, dirty) in self.dirty.iter_mut().enumerate() {
            let Some(range) = dirty.take() else { continue };
            let base = &image.segments[slot].bytes;
            let bytes = Arc::make_mut(&mut self.files.slots[slot]);
            bytes.resize(base.len(), 0);
            let range = range.start.min(base.len())..range.end.min(base.len());
            bytes[range.clone()].copy_from_slice(&base[range]);
        }
        if std::mem::take(&mut self.is_renamed) {
            self.files.names = names(image);
        }
        self.is_forged = false;
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn is_renamed(&self) -> bool {
        self.is_renamed
    }

    pub(super) fn is_forged(&self) -> bool {
        self.is_forged
    }

    pub(super) fn slot(&self, slot: usize) -> &[u8] {
        &self.files.slots[slot]
    }

    /// Whether these bytes of a segment are those of the image.
    pub(super) fn is_intact(&self, image: &Image, slot: usize, range: Range<usize>) -> bool {
        let touches = |dirty: &Range<usize>| dirty.start < range.end && range.start < dirty.end;
        if !self.dirty[slot].as_ref().is_some_and(touches) {
            return true;
        }
        self.slot(slot).get(range.clone()) == Some(&image.segments[slot].bytes[range])
    }

    fn touch(&mut self, slot: usize, range: Range<usize>) -> &mut Vec<u8> {
        let dirty = self.dirty[slot].get_or_insert_with(|| range.clone());
        *dirty = dirty.start.min(range.start)..dirty.end.max(range.end);
        Arc::make_mut(&mut self.files.slots[slot])
    }

    /// Changes the bytes of a range, as far as it lies within the file.
    pub(super) fn change(&mut self, slot: usize, range: Range<usize>, change: impl FnOnce(&mut [u8])) {
        let len = self.slot(slot).len();
        let range = range.start.min(len)..range.end.min(len);
        change(&mut self.touch(slot, range.clone())[range]);
    }

    pub(super) fn truncate(&mut self, slot: usize, length: usize) {
        let len = self.slot(slot).len();
        if length < len {
            self.touch(slot, length..len).truncate(length);
        }
    }

    pub(super) fn extend(&mut self, slot: usize, bytes: &[u8]) {
        let len = self.slot(slot).len();
        self.touch(slot, len..len + bytes.len()).extend_from_slice(bytes);
    }

    /// Changes which file has which name.
    pub(super) fn rename(&mut self, change: impl FnOnce(&mut Vec<(u64, usize)>)) {
        self.is_renamed = true;
        change(&mut self.files.names);
    }

    /// What was changed has right checksums.
    pub(super) fn forge(&mut self) {
        self.is_forged = true;
    }
}

fn names(image: &Image) -> Vec<(u64, usize)> {
    (0..).zip(&image.segments).map(|(slot, segment)| (segment.sequence, slot)).collect()
}

fn read_only<T>() -> io::Result<T> {
    Err(io::Error::from(io::ErrorKind::PermissionDenied))
}

impl Disk for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.iter().map(|(sequence, _)| segment_name(*sequence)).collect())
    }

    fn create(&self, _: &str, _: u64) -> io::Result<()> {
        read_only()
    }

    fn open(&self, name: &str, _: Access) -> io::Result<Box<dyn DiskFile>> {
        let Some(FileState::Segment(sequence)) = FileState::of(name) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let slot = self.names.iter().find(|(of, _)| *of == sequence);
        let (_, slot) = slot.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Box::new(OpenFile(Arc::clone(&self.slots[*slot]))))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn truncate(&self, _: &str, _: u64) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self) -> io::Result<()> {
        read_only()
    }

    fn failed_sync(&self) -> Option<String> {
        None
    }

    fn fresh_id(&self) -> io::Result<u128> {
        read_only()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn path(&self, name: &str) -> String {
        format!("/damaged/{name}")
    }
}

struct OpenFile(Arc<Vec<u8>>);

impl DiskFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(read_at(&self.0, offset, buffer))
    }

    fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
        read_only()
    }

    fn sync(&mut self) -> io::Result<()> {
        read_only()
    }
}
