//! The durable note that shards of this node may have forgotten entries that they acknowledged, or votes.
//!
//! It is made before anything of a damaged log is let go, and taken back shard by shard when a shard has everything back
//! that counts. Until then a start finds it, and the shard takes no part in elections.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use raftkv_protocol::types::ShardId;

use super::text_file::{self, Fields};
use super::{DAMAGE, DataDir};
use crate::error::Fatal;

/// What was found of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDamage {
    /// When, in seconds since 1970.
    pub since_s: u64,
    /// What, in one line.
    pub what: String,
}

impl DataDir {
    /// The shards that may have forgotten something.
    #[must_use]
    pub fn damage(&self) -> &BTreeMap<ShardId, ShardDamage> {
        &self.damage
    }

    /// Remembers durably that these shards may have forgotten something. Must be called before what was damaged is let go.
    pub fn mark_damaged(&mut self, shards: &[ShardId], what: &str, now_s: u64) -> Result<(), Fatal> {
        let found = ShardDamage { since_s: now_s, what: one_line(what) };
        let mut damage = self.damage.clone();
        damage.extend(shards.iter().map(|shard| (*shard, found.clone())));
        self.write_damage(damage)
    }

    /// The shard has everything back, durably: it is like any other from now on.
    pub fn mark_healed(&mut self, shard: ShardId) -> Result<(), Fatal> {
        let mut damage = self.damage.clone();
        if damage.remove(&shard).is_none() {
            return Ok(());
        }
        self.write_damage(damage)
    }

    fn write_damage(&mut self, damage: BTreeMap<ShardId, ShardDamage>) -> Result<(), Fatal> {
        let file = self.path.join(DAMAGE);
        if damage.is_empty() {
            remove(&file)?;
        } else {
            text_file::write(&file, DAMAGE, &fields(&damage))?;
        }
        self.damage = damage;
        Ok(())
    }
}

/// Reads which shards of a data directory may have forgotten something, without using it.
pub fn recorded_damage(path: &Path) -> Result<BTreeMap<ShardId, ShardDamage>, Fatal> {
    read(&path.join(DAMAGE))
}

pub(super) fn read(file: &Path) -> Result<BTreeMap<ShardId, ShardDamage>, Fatal> {
    let fields = text_file::read(file, DAMAGE)?.unwrap_or_default();
    let mut damage = BTreeMap::new();
    for (name, value) in &fields {
        let Some(shard) = name.strip_prefix("shard-") else { continue };
        let senseless = || text_file::damaged(file, &format!("`{name} = {value}` makes no sense"));
        let shard = shard.parse().map(ShardId).map_err(|_| senseless())?;
        let (since_s, what) = value.split_once(' ').ok_or_else(senseless)?;
        let since_s = since_s.parse().map_err(|_| senseless())?;
        damage.insert(shard, ShardDamage { since_s, what: what.to_owned() });
    }
    Ok(damage)
}

fn fields(damage: &BTreeMap<ShardId, ShardDamage>) -> Fields {
    let field = |(shard, found): (&ShardId, &ShardDamage)| {
        (format!("shard-{shard}"), format!("{} {}", found.since_s, found.what))
    };
    damage.iter().map(field).collect()
}

/// Whatever a path in it holds, it stays on its line of the file.
fn one_line(what: &str) -> String {
    what.replace(char::is_control, " ")
}

fn remove(file: &Path) -> Result<(), Fatal> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Fatal::failure(format!("cannot remove {}: {error}; check the disk", file.display())))
        }
        _ => text_file::sync_parent(file),
    }
}
