//! The disk as the process that uses it sees it.

use std::io;
use std::sync::{Arc, MutexGuard};

use super::{NameChange, SimulatedDisk, State, io_error, no_power, no_space};
use crate::storage::disk::{Access, Disk, DiskFile};
use crate::storage::simulated_file::{BLOCK, File};

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.powered()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.state();
        let dies = state.operate()?;
        if state.names.contains_key(name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        if state.full || size > state.free() {
            return Err(no_space());
        }
        let live = vec![0; if dies { size / 2 } else { size } as usize];
        let durable_length = if dies { 0 } else { live.len() };
        let file = state.add(File::new(live, durable_length));
        let change = NameChange::Add(name.to_owned(), file);
        change.apply(&mut state.names);
        state.pending.push(change);
        if dies { Err(no_power()) } else { Ok(()) }
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.powered()?;
        let number = state.number(name)?;
        let life = state.life;
        let file = state.file(number);
        if let Access::Place { size } = access
            && file.live.len() as u64 != size
        {
            let found = file.live.len();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {found} bytes, not {size}")));
        }
        let open = Arc::clone(&file.open);
        Ok(Box::new(SimulatedFile { disk: self.clone(), number, access, life, _open: open }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.number(from)?;
        // The file system would replace it: no log may ever ask for that.
        assert!(!state.names.contains_key(to), "{to} exists");
        state.change_name(NameChange::Move(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.number(name)?;
        state.change_name(NameChange::Remove(name.to_owned()))
    }

    fn truncate(&self, name: &str, size: u64) -> io::Result<()> {
        let mut state = self.state();
        let dies = state.operate()?;
        let number = state.number(name)?;
        let file = state.file(number);
        file.truncate(size as usize);
        if dies {
            return Err(no_power());
        }
        file.sync();
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.refuses_dir_syncs {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.fails_at == Some(state.operations) {
            state.failed_sync.get_or_insert_default();
        }
        if state.operate()? {
            return Err(no_power());
        }
        let pending = std::mem::take(&mut state.pending);
        for change in &pending {
            change.apply(&mut state.durable_names);
        }
        if pending.iter().any(|change| matches!(change, NameChange::Remove(_))) {
            state.forget_nameless();
        }
        Ok(())
    }

    fn failed_sync(&self) -> Option<String> {
        let name = self.state().failed_sync.clone()?;
        Some(format!("cannot sync {}: {}", self.path(&name), io_error()))
    }

    fn fresh_id(&self) -> io::Result<u128> {
        let mut state = self.state();
        state.powered()?;
        Ok(u128::from(state.seed | 1) << 64 | u128::from(state.ids.next()))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        state.powered()?;
        Ok(state.free())
    }

    fn path(&self, name: &str) -> String {
        format!("/simulated/{name}")
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    number: u64,
    access: Access,
    /// The disk's when the file was opened.
    life: u64,
    /// Keeps the file's bytes when it loses its name.
    _open: Arc<()>,
}

impl SimulatedFile {
    /// The disk, if this process still lives and has power.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.powered()?;
        if state.life != self.life {
            return Err(io::Error::other("the file was opened before a crash"));
        }
        Ok(state)
    }

    fn state_to_write(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.access {
            Access::Read => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
            Access::Place { .. } | Access::Grow => self.state(),
        }
    }
}

impl DiskFile for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.state()?.file(self.number).live.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        let file = state.file(self.number);
        let blocks = offset as usize / BLOCK..(offset as usize + buffer.len()).div_ceil(BLOCK);
        if file.unreadable || file.bad_blocks.range(blocks).next().is_some() {
            return Err(io_error());
        }
        let bytes = file.live.get(offset as usize..).unwrap_or(&[]);
        let length = buffer.len().min(bytes.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state_to_write()?;
        let at = offset as usize;
        let length = state.file(self.number).live.len();
        let fits = match self.access {
            Access::Grow => at <= length,
            _ => at.is_multiple_of(BLOCK) && bytes.len().is_multiple_of(BLOCK) && at + bytes.len() <= length,
        };
        if !fits {
            let what = format!("{} bytes at offset {offset} of {length} with {:?}", bytes.len(), self.access);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let dies = state.operate()?;
        // A disk that fills up takes what it can.
        let room = (length - at) as u64 + state.free();
        let taken = room.min(bytes.len() as u64) as usize;
        state.file(self.number).write(at, &bytes[..taken]);
        if dies {
            return Err(no_power());
        }
        if taken < bytes.len() { Err(no_space()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.state_to_write()?;
        let fails = state.fails_sync == Some(state.syncs) || state.fails_at == Some(state.operations);
        if fails {
            state.failed_sync = Some(state.name_or_words(self.number));
        }
        let dies = state.operate();
        state.syncs += 1;
        let file = state.file(self.number);
        if fails {
            file.fail_sync();
            return Err(io_error());
        }
        if dies? {
            return Err(no_power());
        }
        file.sync();
        Ok(())
    }
}
