//! Where connections go, and which keys they draw from there.

use std::net::SocketAddr;

use raftkv_bench::blocking::resolve;
use raftkv_bench::keys::KeySpace;
use tokio::time::sleep;

use crate::args::{Load, Target};
use crate::caller::RETRY_PAUSE;
use crate::{etcd, tonics};

/// How long to wait until every shard, or etcd, has its leader, in attempts.
const LEADER_ATTEMPTS: u32 = 600;

/// One node.
#[derive(Debug)]
pub struct Place {
    pub address: SocketAddr,
    /// The keys whose leader it is.
    pub keys: Vec<u32>,
}

/// The places among which connections are dealt out.
#[derive(Debug)]
pub struct Plan(Vec<Place>);

impl Plan {
    /// Asks every endpoint what it leads, until all keys are led.
    pub async fn make(args: &Load, keys: &KeySpace) -> Result<Plan, String> {
        let mut addresses = Vec::new();
        for endpoint in &args.endpoints {
            addresses.push(resolve(endpoint).map_err(|error| format!("{endpoint}: {error}"))?);
        }
        let mut trouble = String::new();
        for _ in 0..LEADER_ATTEMPTS {
            let places = match args.target {
                Target::Etcd | Target::EtcdTonic => of_etcd(args, &addresses).await,
                Target::Tonic | Target::Rest => of_raftkv(args, keys, &addresses).await,
                Target::Reference => Ok(vec![Place { address: addresses[0], keys: (0..args.keys).collect() }]),
            };
            match places {
                Ok(places) => return Ok(Plan(places)),
                Err(error) => trouble = error,
            }
            sleep(RETRY_PAUSE).await;
        }
        Err(trouble)
    }

    /// Where the connection of this number goes.
    pub fn of(&self, conn: u32) -> &Place {
        &self.0[conn as usize % self.0.len()]
    }

    /// All places.
    pub fn places(&self) -> &[Place] {
        &self.0
    }
}

/// The member that leads.
async fn of_etcd(args: &Load, addresses: &[SocketAddr]) -> Result<Vec<Place>, String> {
    let mut trouble = String::from("no member says that it leads");
    for &address in addresses {
        match etcd::leads(address, args.timeout).await {
            Ok(true) => return Ok(vec![Place { address, keys: (0..args.keys).collect() }]),
            Ok(false) => {}
            Err(error) => trouble = format!("{address}: {error}"),
        }
    }
    Err(trouble)
}

/// Every node that leads something.
async fn of_raftkv(args: &Load, keys: &KeySpace, addresses: &[SocketAddr]) -> Result<Vec<Place>, String> {
    let mut places = Vec::new();
    for &address in addresses {
        let node =
            tonics::RaftKv::connect(address, args.timeout).await.map_err(|error| format!("{address}: {error}"))?;
        let (led, shards) = node.led().await.map_err(|error| format!("{address}: {error}"))?;
        let by_shard = keys.by_shard(shards);
        let led_keys = led.iter().filter_map(|&shard| by_shard.get(usize::from(shard))).flatten().copied().collect();
        places.push(Place { address, keys: led_keys });
    }
    let led: usize = places.iter().map(|place| place.keys.len()).sum();
    if led != args.keys as usize {
        return Err(format!("the endpoints lead {led} of {} keys", args.keys));
    }
    places.retain(|place| !place.keys.is_empty());
    Ok(places)
}
