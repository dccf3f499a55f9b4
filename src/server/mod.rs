//! The node: starts the cores, wires the layers together, and stops them in order.

pub mod admission;
mod assembly;
mod batches;
mod budget;
pub mod by_hand;
mod calls;
mod connection;
mod core_loop;
mod demand;
mod desk;
mod disk_turn;
mod disk_watch;
#[cfg(feature = "http")]
mod exchanges;
mod exit;
mod fan_out;
mod fetcher;
mod gather;
mod greeting;
pub mod health;
mod holds;
#[cfg(feature = "http")]
mod http;
mod io;
mod link;
pub mod local_cluster;
mod logs;
pub mod message;
mod news;
pub mod node;
mod placement;
#[cfg(feature = "http")]
mod process;
mod promises;
mod ready;
mod rebuilding;
pub mod records;
mod reloading;
mod repairs;
mod room;
pub mod router;
mod scrubs;
mod service_manager;
mod snapshot_link;
mod snapshot_threads;
mod snapshots;
mod start;
mod statuses;
mod stopping;
mod tally;
mod terminal;
pub mod together;
pub mod transport;
pub mod vitals;

#[cfg(test)]
mod admission_test;
#[cfg(test)]
mod batches_test;
#[cfg(test)]
mod budget_test;
#[cfg(test)]
mod by_hand_test;
#[cfg(test)]
mod desk_test;
#[cfg(test)]
mod disk_watch_test;
#[cfg(test)]
mod fetcher_test;
#[cfg(test)]
mod forwarding_test;
#[cfg(test)]
mod health_test;
#[cfg(test)]
mod local_cluster_test;
#[cfg(test)]
mod news_test;
#[cfg(test)]
mod placement_test;
#[cfg(test)]
mod records_test;
#[cfg(test)]
mod reloading_test;
#[cfg(test)]
mod room_test;
#[cfg(test)]
mod router_limits_test;
#[cfg(test)]
mod router_test;
#[cfg(test)]
mod service_manager_test;
#[cfg(test)]
mod snapshot_link_test;
#[cfg(test)]
mod together_test;

pub use start::run;
