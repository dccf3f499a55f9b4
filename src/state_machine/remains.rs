//! What is left of a state that nobody needs any more, to be let go of little by little.
//!
//! A snapshot holds what was replaced while it was written: many thousand values, which become free when it goes. Whoever
//! asks the allocator next for a size that it does not have ready then waits until all of that is put in order (glibc's
//! looks at up to 10,000 pieces, and takes 1 ms), and that is a loop: they are freed by another thread, but belong to where
//! they were allocated. Let go of in portions, they are used up by the loop's own puts before they are many.

use std::fmt;

use triomphe::{Arc, UniqueArc};

use super::StateMachine;
use super::snapshot::Snapshot;
use super::tree::{Node, Tree};

/// What an item counts for besides its key and value: however short it is, it is a piece of memory.
const ITEM_BYTES: usize = 64;

/// See the module.
pub struct Remains {
    /// Nodes that were not looked at yet. What others hold too is none of this.
    nodes: Vec<Arc<Node>>,
}

impl Remains {
    pub(super) fn of(map: Tree) -> Remains {
        Remains { nodes: vec![map.root] }
    }

    /// Lets go of some of it: of no more than so many bytes of keys and values, 64 more for each, and those of one more leaf. How many it was;
    /// `None` if nothing is left.
    pub fn let_go_some(&mut self, bytes_max: usize) -> Option<usize> {
        let mut bytes = 0;
        while bytes <= bytes_max {
            let Some(node) = self.nodes.pop() else { return Some(bytes).filter(|_| bytes > 0) };
            match Arc::into_unique(node).map(UniqueArc::into_inner) {
                None => {}
                Some(Node::Inner(row)) => self.nodes.extend(row.0.into_iter().map(|(_, child)| child)),
                Some(Node::Leaf(row)) => {
                    let size = |key: &[u8], value: &[u8]| ITEM_BYTES + key.len() + value.len();
                    let sizes = row.0.iter().map(|(key, stored)| size(key.as_bytes(), stored.value()));
                    bytes += sizes.sum::<usize>();
                }
            }
        }
        Some(bytes)
    }
}

impl From<StateMachine> for Remains {
    fn from(machine: StateMachine) -> Remains {
        Remains::of(machine.map)
    }
}

impl From<Snapshot> for Remains {
    fn from(state: Snapshot) -> Remains {
        Remains::of(state.into_map())
    }
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remains {{ nodes: {} }}", self.nodes.len())
    }
}
