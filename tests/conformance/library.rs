//! The client library.

use raftkv::client::{Batch, Client, NodeId, Result, ScanOptions};
use raftkv_protocol::client::{BatchOperation, Change, Code, Operation, Scan};

use crate::binary;
use crate::face::{Face, More, NodeState, Outcome, Page};
use crate::support::cluster::Cluster;

pub struct Library {
    client: Client,
    /// Whose status it asks for.
    node: u64,
}

impl Library {
    pub fn connect(cluster: &Cluster, node: u64) -> Library {
        Library { client: cluster.client(), node }
    }

    fn try_ask(&self, operation: Operation<'_>) -> Result<Option<Outcome>> {
        let client = &self.client;
        Ok(Some(match operation {
            Operation::Put { key, value, condition } => {
                Outcome::Put { version: client.put_if(key, value, condition)?.0 }
            }
            Operation::Delete { key, condition } => Outcome::Deleted { existed: client.delete_if(key, condition)? },
            Operation::Batch(batch) => {
                let add = |batch: Batch, BatchOperation { key, condition, change }: BatchOperation<'_>| match change {
                    Change::Put(value) => batch.put_if(key, value, condition),
                    Change::Delete => batch.delete_if(key, condition),
                };
                let batched = client.batch(batch.operations().fold(Batch::new(), add))?;
                Outcome::Batch { version: batch.has_puts().then_some(batched.version.0), deleted: batched.deleted }
            }
            Operation::Get { key, consistency } => match client.get_with(key, consistency)? {
                Some(value) => Outcome::Value { version: value.version.0, bytes: value.bytes },
                None => return Ok(None),
            },
            Operation::Scan(scan) => {
                let page = client.scan(options(&scan))?;
                Outcome::Page(Page { items: page.items, more: page.cursor.map_or(More::No, More::Yes) })
            }
            operation => panic!("no case asks for {operation:?}"),
        }))
    }
}

fn options(scan: &Scan<'_>) -> ScanOptions {
    let options = ScanOptions::prefix(scan.prefix).start(scan.start).end(scan.end).cursor(scan.cursor);
    let options = options.limit(scan.limit).consistency(scan.consistency);
    if scan.reverse { options.reverse() } else { options }
}

impl Face for Library {
    fn name(&self) -> String {
        "the client library".to_owned()
    }

    fn ask(&mut self, operation: Operation<'_>) -> Outcome {
        match self.try_ask(operation) {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Outcome::Refused(Code::NotFound),
            Err(error) => {
                let code = error.code().unwrap_or_else(|| panic!("{operation:?}: {error}"));
                assert_eq!(error.maybe_applied(), code.maybe_applied() && is_write(&operation), "{error}");
                Outcome::Refused(code)
            }
        }
    }

    fn status(&mut self) -> NodeState {
        binary::state(self.client.status(NodeId(self.node)).expect("the node answers"))
    }
}

fn is_write(operation: &Operation<'_>) -> bool {
    matches!(operation, Operation::Put { .. } | Operation::Delete { .. } | Operation::Batch(_))
}
