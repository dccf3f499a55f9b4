//! The disk on which the images are written: files in memory, and a bell that rings at every sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use raftkv::storage::disk::{Access, Disk, DiskFile};

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, usize>,
    files: Vec<Vec<u8>>,
    /// The allocator's draws are counted apart: it works beside the others, and ids must not depend on who is faster.
    ids: u128,
    allocator_ids: u128,
}

impl State {
    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    state: Arc<Mutex<State>>,
    synced: Sender<()>,
    /// What new files hold instead of zeros: an earlier life.
    recycled: Arc<Vec<u8>>,
}

impl Recorder {
    /// A disk with these files, whose ids begin after `ids`.
    pub(super) fn new(files: BTreeMap<String, Vec<u8>>, ids: u128, recycled: Vec<u8>, synced: Sender<()>) -> Recorder {
        let (names, files): (Vec<String>, Vec<Vec<u8>>) = files.into_iter().unzip();
        let names = (0..).zip(names).map(|(file, name)| (name, file)).collect();
        let state = State { names, files, ids, allocator_ids: 1 << 64 };
        Recorder { state: Arc::new(Mutex::new(state)), synced, recycled: Arc::new(recycled) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the disk")
    }

    /// The segments as they are now.
    pub(super) fn segments(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let segments = state.names.iter().filter(|(name, _)| name.starts_with("segment-"));
        segments.map(|(name, &file)| (name.clone(), state.files[file].clone())).collect()
    }
}

impl Disk for Recorder {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<()> {
        let mut bytes = self.recycled.to_vec();
        bytes.resize(size as usize, 0);
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(bytes);
        state.names.insert(name.to_owned(), file);
        Ok(())
    }

    fn open(&self, name: &str, _: Access) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state().file(name)?;
        Ok(Box::new(OpenFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(name)?;
        state.names.remove(name);
        Ok(())
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.state();
        let file = state.file(name)?;
        state.files[file].truncate(size as usize);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn failed_sync(&self) -> Option<String> {
        None
    }

    fn fresh_id(&self) -> io::Result<u128> {
        let mut state = self.state();
        let is_allocator = thread::current().name() == Some("log-allocator");
        let ids = if is_allocator { &mut state.allocator_ids } else { &mut state.ids };
        *ids += 1;
        Ok(*ids)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn path(&self, name: &str) -> String {
        format!("/image/{name}")
    }
}

struct OpenFile {
    disk: Recorder,
    file: usize,
}

impl DiskFile for OpenFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(read_at(&self.disk.state().files[self.file], offset, buffer))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.state().files[self.file][offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        // Nobody listens any more when an image is finished.
        let _ = self.disk.synced.send(());
        Ok(())
    }
}

/// Reads at `offset` until the buffer is full or the bytes end; returns how many were read.
pub(super) fn read_at(bytes: &[u8], offset: u64, buffer: &mut [u8]) -> usize {
    let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or(&[]);
    let length = from.len().min(buffer.len());
    buffer[..length].copy_from_slice(&from[..length]);
    length
}
