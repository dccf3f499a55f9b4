//! What all faces have in common: what they are asked, and what they tell.

use raftkv::client::Item;
use raftkv_protocol::client::{Code, Operation, Scan};

use crate::binary::Binary;
use crate::grpc::Grpc;
use crate::library::Library;
use crate::rest::Rest;
use crate::support::cluster::Cluster;

/// What has become of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Put {
        version: u64,
    },
    Deleted {
        existed: bool,
    },
    Batch {
        /// Of the keys that were put; `None` if none was.
        version: Option<u64>,
        /// Of each operation: whether it has removed a key that was there.
        deleted: Vec<bool>,
    },
    Value {
        version: u64,
        bytes: Vec<u8>,
    },
    Page(Page),
    Refused(Code),
}

/// Some of the keys of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<Item>,
    pub more: More,
}

/// What comes behind a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum More {
    No,
    /// The scan goes on with this cursor, which means something to the face that gave it.
    Yes(Vec<u8>),
    /// gRPC ends its stream at the limit of a scan and does not tell whether that was all; the scan may go on here.
    Untold(Vec<u8>),
}

/// A node, as it tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    pub cluster: String,
    pub node: u64,
    pub incarnation: String,
    pub version: String,
    pub disk: String,
    pub members: Vec<(u64, String)>,
    pub shards: Vec<ShardState>,
    pub counters: Vec<String>,
}

/// One of its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    pub id: u64,
    pub role: String,
    pub term: u64,
    pub leader: Option<u64>,
    pub commit: u64,
    pub applied: u64,
    pub persisted: u64,
    pub last_index: u64,
    pub last_term: u64,
    pub snapshot_index: u64,
    pub keys: u64,
    pub state_hash: u128,
    pub is_repairing: bool,
    pub is_diverged: bool,
}

/// A way to a cluster.
pub trait Face {
    /// Which, and by way of which node.
    fn name(&self) -> String;

    /// Asks, and waits for what comes of it. A cursor is one that the same face has given.
    fn ask(&mut self, operation: Operation<'_>) -> Outcome;

    /// Everything that a scan gives within its limit, however many pages that takes. A face that cannot be asked for it at
    /// once is asked for page after page.
    fn whole(&mut self, scan: &Scan<'_>) -> Vec<Item> {
        let (mut items, mut cursor) = (Vec::new(), Vec::new());
        loop {
            // A limit of 0 is none.
            let limit = scan.limit.saturating_sub(items.len() as u32);
            let page = match self.ask(Operation::Scan(Scan { cursor: &cursor, limit, ..*scan })) {
                Outcome::Page(page) => page,
                outcome => panic!("a scan is answered {outcome:?}"),
            };
            items.extend(page.items);
            match page.more {
                More::Yes(next) if scan.limit == 0 || items.len() < scan.limit as usize => cursor = next,
                _ => return items,
            }
        }
    }

    /// What a node tells of itself.
    fn status(&mut self) -> NodeState;
}

/// Every face of a node.
pub fn of_node(cluster: &Cluster, node: u64) -> Vec<Box<dyn Face + Send>> {
    let address = cluster.address(node);
    vec![
        Box::new(Binary::connect(node, address)),
        Box::new(Rest::connect(node, address)),
        Box::new(Grpc::connect(node, address)),
    ]
}

/// Every face of these nodes, and the client library.
pub fn of_nodes(cluster: &Cluster, nodes: &[u64]) -> Vec<Box<dyn Face + Send>> {
    let mut faces: Vec<_> = nodes.iter().flat_map(|node| of_node(cluster, *node)).collect();
    faces.push(Box::new(Library::connect(cluster, nodes[0])));
    faces
}
