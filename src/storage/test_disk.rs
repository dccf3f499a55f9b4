//! A disk in memory that knows what a crash may leave: every file has live and durable bytes, every change of a name is
//! pending until the directory is synced. It can lose power at any operation, fail syncs, and be full.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Access, Disk, DiskFile};

/// What survives a crash of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survivors {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Any subset of the blocks of this size, and of the changes of names.
    Random {
        /// Decides which.
        seed: u64,
        /// 512 or 4,096.
        block: usize,
    },
}

/// A small, good enough generator (splitmix64).
#[derive(Clone, Debug)]
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

#[derive(Clone, Debug, Default)]
struct Bytes {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Renaming {
    Add(String, usize),
    Move(String, String),
    Remove(String),
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Renaming::Add(name, file) => drop(names.insert(name.clone(), *file)),
            Renaming::Move(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Renaming::Remove(name) => drop(names.remove(name)),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    files: Vec<Bytes>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<Renaming>,
    last_id: u128,
    /// Operations that change something, so far.
    operations: u64,
    /// The operation at which the power goes.
    dies_at: Option<u64>,
    syncs: u64,
    /// The sync that fails, once.
    fails_sync: Option<u64>,
    full: bool,
    /// Files whose reads fail.
    unreadable: Option<String>,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct TestDisk(Arc<Mutex<State>>);

impl TestDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the disk")
    }

    /// The disk as it is found after a crash.
    pub(super) fn crash(&self, survivors: Survivors) -> TestDisk {
        let old = self.state();
        let mut random = Random(match survivors {
            Survivors::Random { seed, .. } => seed,
            Survivors::None | Survivors::All => 0,
        });
        let mut survives = || match survivors {
            Survivors::None => false,
            Survivors::All => true,
            Survivors::Random { .. } => random.below(2) == 0,
        };
        let mut names = old.durable_names.clone();
        for renaming in &old.pending {
            if survives() {
                renaming.apply(&mut names);
            }
        }
        let block = if let Survivors::Random { block, .. } = survivors { block } else { 4096 };
        let mut files = Vec::new();
        for file in &old.files {
            let mut bytes = file.durable.clone();
            if file.live.len() != bytes.len() && survives() {
                bytes.resize(file.live.len(), 0);
            }
            for (old, new) in bytes.chunks_mut(block).zip(file.live.chunks(block)) {
                if *old != new[..old.len()] && survives() {
                    old.copy_from_slice(&new[..old.len()]);
                }
            }
            files.push(Bytes { live: bytes.clone(), durable: bytes });
        }
        let state = State { files, durable_names: names.clone(), names, last_id: old.last_id, ..State::default() };
        TestDisk(Arc::new(Mutex::new(state)))
    }

    /// A copy that lives on by itself.
    pub(super) fn fork(&self) -> TestDisk {
        self.crash(Survivors::All)
    }

    /// The power goes at the `operation`-th operation from now on (0 is the next); it is carried out, but may be lost.
    pub(super) fn die_at(&self, operation: u64) {
        let mut state = self.state();
        state.dies_at = Some(state.operations + operation);
    }

    /// The `sync`-th sync from now on fails (0 is the next), and later ones succeed without doing anything for what was
    /// lost.
    pub(super) fn fail_sync(&self, sync: u64) {
        let mut state = self.state();
        state.fails_sync = Some(state.syncs + sync);
    }

    pub(super) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    pub(super) fn set_unreadable(&self, name: &str) {
        self.state().unreadable = Some(name.to_owned());
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].live.clone()
    }

    /// Replaces a file's bytes, or adds a file, behind the log's back.
    pub(super) fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Bytes { live: bytes.clone(), durable: bytes });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    pub(super) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[name];
        let bytes = &mut state.files[file];
        edit(&mut bytes.live);
        bytes.durable = bytes.live.clone();
    }

    pub(super) fn remove_quietly(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}

impl State {
    fn powered(&self) -> io::Result<()> {
        if self.dies_at.is_some_and(|at| self.operations > at) { Err(no_power()) } else { Ok(()) }
    }

    /// Counts an operation; `true` if the power goes during it.
    fn operate(&mut self) -> io::Result<bool> {
        self.operations += 1;
        if self.dies_at.is_some_and(|at| self.operations > at + 1) {
            return Err(no_power());
        }
        Ok(self.dies_at.is_some_and(|at| self.operations == at + 1))
    }

    fn rename(&mut self, renaming: Renaming) -> io::Result<()> {
        let dies = self.operate()?;
        renaming.apply(&mut self.names);
        self.pending.push(renaming);
        if dies { Err(no_power()) } else { Ok(()) }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl Disk for TestDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.powered()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.state();
        let dies = state.operate()?;
        if state.full {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let size = if dies { size / 2 } else { size };
        let bytes = vec![0; size as usize];
        let durable = if dies { Vec::new() } else { bytes.clone() };
        let file = state.files.len();
        state.files.push(Bytes { live: bytes, durable });
        let renaming = Renaming::Add(name.to_owned(), file);
        renaming.apply(&mut state.names);
        state.pending.push(renaming);
        if dies { Err(no_power()) } else { Ok(()) }
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        state.powered()?;
        let file = state.file(name)?;
        if let Access::Place { size } = access {
            assert_eq!(state.files[file].live.len() as u64, size, "a segment is prefilled");
        }
        Ok(Box::new(TestFile { disk: self.clone(), name: name.to_owned(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        assert!(!state.names.contains_key(to), "{to} exists");
        state.file(from)?;
        state.rename(Renaming::Move(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.file(name)?;
        state.rename(Renaming::Remove(name.to_owned()))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.state();
        let dies = state.operate()?;
        let file = state.file(name)?;
        state.files[file].live.truncate(size as usize);
        if dies { Err(no_power()) } else { Ok(()) }
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.operate()? {
            return Err(no_power());
        }
        state.durable_names = state.names.clone();
        state.pending.clear();
        Ok(())
    }

    fn fresh_id(&self) -> io::Result<u128> {
        let mut state = self.state();
        state.last_id += 1;
        Ok(state.last_id)
    }

    fn path(&self, name: &str) -> String {
        format!("/test/{name}")
    }
}

struct TestFile {
    disk: TestDisk,
    name: String,
    file: usize,
}

impl DiskFile for TestFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        state.powered()?;
        if state.unreadable.as_ref() == Some(&self.name) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        let bytes = state.files[self.file].live.get(offset as usize..).unwrap_or(&[]);
        let length = buffer.len().min(bytes.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let dies = state.operate()?;
        let at = offset as usize;
        state.files[self.file].live[at..at + bytes.len()].copy_from_slice(bytes);
        if dies { Err(no_power()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        let dies = state.operate()?;
        state.syncs += 1;
        if state.fails_sync.is_some_and(|sync| state.syncs == sync + 1) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if dies {
            return Err(no_power());
        }
        let file = &mut state.files[self.file];
        file.durable = file.live.clone();
        Ok(())
    }
}
