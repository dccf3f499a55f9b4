//! A disk in memory that knows what a crash may leave, for the tests of the log and for simulations of whole nodes.
//!
//! What a crash may leave of a file's bytes is in `simulated_file`. A change of a name is pending until the directory is
//! synced. [`SimulatedDisk::crash`] chooses which of all that survives: any blocks of 512 or 4,096 bytes, any length
//! that a file had on its way, any changes of names.
//!
//! What else happens to disks happens on demand: the power goes at any operation, a sync fails, the space runs out, a
//! bit flips. One seed is one disk: ids, and what survives, depend on seeds and on what was done to the disk.

mod interface;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use super::simulated_file::Random;
pub use super::simulated_file::{CrashReport, Survivors};
use super::simulated_file::{File, Lottery, Stake};

/// What a crash decided about one thing that was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    stake: Stake,
    /// Whether it reached the medium.
    pub survived: bool,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, u64),
    Move(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Add(name, file) => drop(names.insert(name.clone(), *file)),
            NameChange::Move(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            NameChange::Remove(name) => drop(names.remove(name)),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct State {
    seed: u64,
    ids: Random,
    files: BTreeMap<u64, File>,
    last_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
    /// Crashes and restarts so far: files that were opened before are closed.
    life: u64,
    /// Operations that change something, so far.
    operations: u64,
    /// The operation at which the power goes.
    dies_at: Option<u64>,
    /// The operation that fails, once.
    fails_at: Option<u64>,
    /// Operations that have failed so.
    failures: u64,
    syncs: u64,
    /// The sync that fails, once.
    fails_sync: Option<u64>,
    /// The name of the file whose sync has failed so, since the last crash or restart.
    failed_sync: Option<String>,
    full: bool,
    refuses_dir_syncs: bool,
    capacity: Option<u64>,
    last_crash: CrashReport,
}

impl State {
    fn is_off(&self) -> bool {
        self.dies_at.is_some_and(|at| self.operations > at)
    }

    fn powered(&self) -> io::Result<()> {
        if self.is_off() { Err(no_power()) } else { Ok(()) }
    }

    /// Counts an operation; `true` if the power goes during it.
    fn operate(&mut self) -> io::Result<bool> {
        self.powered()?;
        let operation = self.operations;
        self.operations += 1;
        if self.fails_at == Some(operation) {
            self.failures += 1;
            return Err(io_error());
        }
        Ok(self.dies_at == Some(operation))
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let dies = self.operate()?;
        change.apply(&mut self.names);
        self.pending.push(change);
        if dies { Err(no_power()) } else { Ok(()) }
    }

    fn add(&mut self, file: File) -> u64 {
        self.last_file += 1;
        self.files.insert(self.last_file, file);
        self.last_file
    }

    fn number(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn name_of(&self, number: u64) -> Option<String> {
        self.names.iter().find(|(_, of)| **of == number).map(|(name, _)| name.clone())
    }

    fn name_or_words(&self, number: u64) -> String {
        self.name_of(number).unwrap_or_else(|| "a file without a name".to_owned())
    }

    fn file(&mut self, number: u64) -> &mut File {
        self.files.get_mut(&number).expect("a file with a name, or open, is there")
    }

    /// For those who act behind the log's back.
    fn named(&mut self, name: &str) -> &mut File {
        let number = self.number(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.file(number)
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.live.len() as u64).sum()
    }

    /// How many bytes more the files may have.
    fn free(&self) -> u64 {
        let capacity = if self.full { 0 } else { self.capacity.unwrap_or(u64::MAX) };
        capacity.saturating_sub(self.used())
    }

    /// Gives up the bytes of files that have no name any more, whatever happens, and that nobody reads.
    fn forget_nameless(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.files.retain(|number, file| named.contains(number) || Arc::strong_count(&file.open) > 1);
    }

    /// Crashes. What was decided about is the answer, in order; what is `given` of it was decided before.
    fn crash(&mut self, survivors: Survivors, given: &[bool]) -> Vec<(Stake, bool)> {
        let mut lottery = Lottery::new(survivors, given);
        let mut report = CrashReport::default();
        for (number, change) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if lottery.survives(Stake::Name(number)) {
                change.apply(&mut self.durable_names);
                report.names_survived += 1;
            } else {
                report.names_lost += 1;
            }
        }
        self.names.clone_from(&self.durable_names);
        for (number, file) in &mut self.files {
            file.crash(*number, &mut lottery, &mut report);
        }
        self.forget_nameless();
        self.last_crash = report;
        self.restart();
        lottery.drawn
    }

    /// What a crash decides about, in words.
    fn describe(&self, stake: Stake) -> String {
        match stake {
            Stake::Name(number) => match &self.pending[number] {
                NameChange::Add(name, _) => format!("the name {name}"),
                NameChange::Move(from, to) => format!("the renaming of {from} to {to}"),
                NameChange::Remove(name) => format!("the removal of {name}"),
            },
            Stake::Length { file } => format!("the length of {}", self.name_or_words(file)),
            Stake::Bytes { file, at, length } => format!("{length} bytes at {at} of {}", self.name_or_words(file)),
        }
    }

    fn restart(&mut self) {
        self.life += 1;
        (self.dies_at, self.fails_at, self.fails_sync) = (None, None, None);
        self.failed_sync = None;
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn no_space() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn io_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

/// See the module. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    /// An empty disk; the seed decides which ids it draws.
    #[must_use]
    pub fn new(seed: u64) -> SimulatedDisk {
        let state = State { seed, ids: Random(seed), ..State::default() };
        SimulatedDisk(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave it half changed: at worst a file was written in part, as disks do.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it would be found after a crash at this moment. This one goes on.
    #[must_use]
    pub fn crash(&self, survivors: Survivors) -> SimulatedDisk {
        self.crash_given(survivors, &[]).0
    }

    /// The same, with the fates that it decided, in order. The first of them are `given`: so an image can be made again,
    /// and made with one fate changed.
    #[must_use]
    pub fn crash_given(&self, survivors: Survivors, given: &[bool]) -> (SimulatedDisk, Vec<Fate>) {
        let before = self.state();
        let mut state = before.clone();
        let drawn = state.crash(survivors, given);
        let fate = |(stake, survived)| Fate { stake, survived };
        (SimulatedDisk(Arc::new(Mutex::new(state))), drawn.into_iter().map(fate).collect())
    }

    /// What a fate was about, in words. The disk is the one that was to crash.
    #[must_use]
    pub fn describe(&self, fate: &Fate) -> String {
        self.state().describe(fate.stake)
    }

    /// The power goes and comes back: what does not survive is lost, and files that are open fail from now on. Deaths
    /// and failures that were planned are forgotten; a full disk stays full.
    pub fn crash_in_place(&self, survivors: Survivors) {
        self.state().crash(survivors, &[]);
    }

    /// The process that used the disk died, by itself or at [`SimulatedDisk::die_at`], and the machine goes on: files
    /// that are open fail from now on, but nothing is lost, and nothing becomes durable by it.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// A copy that lives on by itself, with everything durable.
    #[must_use]
    pub fn fork(&self) -> SimulatedDisk {
        self.crash(Survivors::All)
    }

    /// What the last crash did.
    #[must_use]
    pub fn last_crash(&self) -> CrashReport {
        self.state().last_crash
    }

    /// The power goes at the `operation`-th operation from now on (0 is the next); it is carried out, but may be lost.
    /// Then nothing works until a crash or restart.
    pub fn die_at(&self, operation: u64) {
        let mut state = self.state();
        state.dies_at = Some(state.operations + operation);
    }

    /// The power goes now, between two operations.
    pub fn turn_off(&self) {
        let mut state = self.state();
        state.dies_at = Some(state.operations);
        state.operations += 1;
    }

    /// Whether the power went.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.state().is_off()
    }

    /// The `operation`-th operation from now on (0 is the next) fails and is not carried out; later ones work.
    pub fn fail_at(&self, operation: u64) {
        let mut state = self.state();
        state.fails_at = Some(state.operations + operation);
    }

    /// The `sync`-th sync of a file from now on (0 is the next) fails. Later ones succeed, and do nothing for what was
    /// to be synced then: as Linux does, the pages count as clean, are read as they were written, and never reach the
    /// medium.
    pub fn fail_sync(&self, sync: u64) {
        let mut state = self.state();
        state.fails_sync = Some(state.syncs + sync);
    }

    /// The file whose sync has failed since the last crash or restart, by the name that it had then; no name for the directory.
    #[must_use]
    pub fn unsynced_name(&self) -> Option<String> {
        self.state().failed_sync.clone()
    }

    /// Whether no file can be created, and none can grow.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state().full
    }

    /// Lets no file be created, and none grow, or lets them again.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Has no room to make changes of names durable, or has again: some file systems need space for that.
    pub fn refuse_dir_syncs(&self, refuse: bool) {
        self.state().refuses_dir_syncs = refuse;
    }

    /// The bytes that all files may have together; `None` for any number.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Whether reads of this file fail, under whatever name it gets.
    pub fn set_unreadable(&self, name: &str, unreadable: bool) {
        self.state().named(name).unreadable = unreadable;
    }

    /// A block of this file cannot be read any more, whatever name the file gets.
    pub fn spoil_block(&self, name: &str, block: usize) {
        self.state().named(name).bad_blocks.insert(block);
    }

    /// Operations that change something, so far: writes, syncs, and changes of names and lengths.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Operations that have failed at [`SimulatedDisk::fail_at`], so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Syncs of files so far.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Tells the file of this name from all others, whatever name it gets.
    #[must_use]
    pub fn number_of(&self, name: &str) -> Option<u64> {
        self.state().names.get(name).copied()
    }

    /// The name that the file with this number has now.
    #[must_use]
    pub fn name_of(&self, number: u64) -> Option<String> {
        self.state().name_of(number)
    }

    /// The bytes that all files have together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// The names of all files, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The bytes of a file as they are read.
    #[must_use]
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.state().named(name).live.clone()
    }

    /// Flips a bit (0 to 7), in memory and on the medium alike.
    pub fn flip(&self, name: &str, byte: u64, bit: u8) {
        let mut state = self.state();
        let file = state.named(name);
        file.flip(byte as usize, 1 << bit);
    }

    /// Shortens a file, in memory and on the medium alike.
    pub fn truncate_quietly(&self, name: &str, length: u64) {
        let mut state = self.state();
        let file = state.named(name);
        file.live.truncate(length as usize);
        file.durable_length = file.durable_length.min(length as usize);
    }

    /// Changes a file in any way; all of it is durable then.
    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.named(name);
        edit(&mut file.live);
        file.settle();
    }

    /// Adds a file, or puts another in its place, durably.
    pub fn set_bytes(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let length = bytes.len();
        let file = state.add(File::new(bytes, length));
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
    }

    /// Removes a file, durably.
    pub fn remove_quietly(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }
}
