//! Which requests a run sends: draws keys and values from buffers that were filled beforehand.

use raftkv_protocol::client::{Condition, Consistency, Operation, Request, Scan};
use raftkv_protocol::types::RequestId;

use crate::args::Workload;
use crate::keys::KeySpace;
use crate::rng::Rng;

/// How many bytes more than one value the pool of values has: each put takes its value at a random place of it.
const POOL_SLACK: usize = 4096;

/// What the requests look like.
#[derive(Clone, Debug)]
pub struct Mix {
    /// What is asked.
    pub workload: Workload,
    /// The keys of the run.
    pub keys: KeySpace,
    /// Bytes of a value.
    pub value_size: usize,
    /// The share of gets in a mixed workload.
    pub read_ratio: f64,
    /// Items in a page of a scan.
    pub scan_limit: u32,
}

/// Encodes one request after the other without allocating.
#[derive(Debug)]
pub struct Operations {
    mix: Mix,
    rng: Rng,
    key: Vec<u8>,
    pool: Vec<u8>,
}

impl Operations {
    /// The sequence that belongs to `seed`.
    pub fn new(mix: Mix, seed: u64) -> Operations {
        let mut rng = Rng::new(seed);
        let mut pool = vec![0; mix.value_size + POOL_SLACK];
        rng.fill(&mut pool);
        Operations { key: mix.keys.buffer(), mix, rng, pool }
    }

    /// Appends the next request, for one of `keys` (not empty), to `out`.
    pub fn encode_next(&mut self, id: RequestId, keys: &[u32], out: &mut Vec<u8>) {
        let index = keys[self.rng.below(keys.len())];
        let reads = match self.mix.workload {
            Workload::Put => false,
            Workload::Get | Workload::Scan => true,
            Workload::Mixed => self.rng.unit() < self.mix.read_ratio,
        };
        if reads && self.mix.workload == Workload::Scan {
            self.encode_scan(id, index, out);
        } else if reads {
            self.mix.keys.write(index, &mut self.key);
            let operation = Operation::Get { key: &self.key, consistency: Consistency::Linearizable };
            Request { id, operation }.encode(out);
        } else {
            Request { id, operation: self.put(index) }.encode(out);
        }
    }

    /// A put of key `index` with a random value.
    pub fn put(&mut self, index: u32) -> Operation<'_> {
        self.mix.keys.write(index, &mut self.key);
        let at = self.rng.below(POOL_SLACK);
        Operation::Put { key: &self.key, value: &self.pool[at..at + self.mix.value_size], condition: Condition::None }
    }

    fn encode_scan(&mut self, id: RequestId, index: u32, out: &mut Vec<u8>) {
        self.mix.keys.write(index, &mut self.key);
        let scan = Scan {
            prefix: self.mix.keys.prefix(),
            start: &self.key,
            limit: self.mix.scan_limit,
            consistency: Consistency::Linearizable,
            ..Scan::default()
        };
        Request { id, operation: Operation::Scan(scan) }.encode(out);
    }
}
