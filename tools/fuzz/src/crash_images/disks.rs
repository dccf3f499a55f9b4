//! The disks of one node: all lose their power at the same time, and what each keeps is decided apart.

use raftkv::storage::simulated_disk::{Fate, SimulatedDisk, Survivors};

use crate::random::Random;

/// One for the log, and one for each shard's directory of snapshots.
pub(super) const DISKS: usize = 1 + super::SHARDS.len();

/// See the module. The first is the log's.
pub(super) struct Disks([SimulatedDisk; DISKS]);

/// What becomes of what was not synced, by disk. What is given goes before what chance says.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) survivors: [Survivors; DISKS],
    pub(super) given: [Vec<bool>; DISKS],
}

impl Image {
    pub(super) fn random(random: &mut Random) -> Image {
        let mut survivors = || match random.below(16) {
            0 | 1 => Survivors::None,
            2 => Survivors::All,
            kind => Survivors::Random { seed: random.next_u64(), block: if kind % 2 == 0 { 512 } else { 4096 } },
        };
        Image { survivors: std::array::from_fn(|_| survivors()), given: Default::default() }
    }
}

impl Disks {
    pub(super) fn new(seed: u64) -> Disks {
        Disks(std::array::from_fn(|number| SimulatedDisk::new(seed.wrapping_add(number as u64))))
    }

    pub(super) fn log(&self) -> &SimulatedDisk {
        &self.0[0]
    }

    /// The directory of the snapshots of the shard with this number.
    pub(super) fn snapshots(&self, shard: usize) -> &SimulatedDisk {
        &self.0[1 + shard]
    }

    pub(super) fn is_off(&self) -> bool {
        self.0.iter().any(SimulatedDisk::is_off)
    }

    /// The power goes now, if it has not gone.
    pub(super) fn turn_off(&self) {
        self.0.iter().filter(|disk| !disk.is_off()).for_each(SimulatedDisk::turn_off);
    }

    /// The process died, and the machine goes on.
    pub(super) fn restart(&self) {
        self.0.iter().for_each(SimulatedDisk::restart);
    }

    /// What a start finds; and what was decided about each thing that was not synced, by disk.
    pub(super) fn crash(&self, image: &Image) -> (Disks, [Vec<Fate>; DISKS]) {
        let mut fates: [Vec<Fate>; DISKS] = Default::default();
        let disks = std::array::from_fn(|number| {
            let (disk, decided) = self.0[number].crash_given(image.survivors[number], &image.given[number]);
            fates[number] = decided;
            disk
        });
        (Disks(disks), fates)
    }

    /// What a fate was about, in words.
    pub(super) fn describe(&self, disk: usize, fate: &Fate) -> String {
        let place = match disk {
            0 => "the log".to_owned(),
            shard => format!("the snapshots of shard {}", super::SHARDS[shard - 1]),
        };
        format!("{} in {place}", self.0[disk].describe(fate))
    }

    /// Whether the last crash left a block in part; whether it took back the change of a name.
    pub(super) fn torn_and_names_lost(&self) -> (bool, bool) {
        let reports = || self.0.iter().map(SimulatedDisk::last_crash);
        (reports().any(|report| report.blocks_torn > 0), reports().any(|report| report.names_lost > 0))
    }

    /// The power goes at the so-manieth operation of one of them.
    pub(super) fn die(&self, random: &mut Random) {
        match random.below(8) {
            0 => {}
            1..3 => self.0[1 + random.below(DISKS - 1)].die_at(random.below(24) as u64),
            _ => self.log().die_at(random.below(140) as u64),
        }
    }
}
