//! The requests of one connection that wait for their replies: a fixed table, so that a request costs no allocation.

use raftkv_protocol::types::RequestId;

/// How many bits of a request id name the place in the table; those above count how often it was used.
const PLACE_BITS: u32 = 16;
/// The most requests in flight on a connection.
pub const INFLIGHT_MAX: usize = 1 << PLACE_BITS;

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Sent at this time, in nanoseconds since the start of the run; `None` if the place is free.
    since: Option<u64>,
    uses: u64,
}

/// Places for a fixed number of requests.
#[derive(Clone, Debug)]
pub struct Inflight {
    places: Vec<Place>,
    free: Vec<u16>,
}

impl Inflight {
    /// Room for `limit` requests (at most [`INFLIGHT_MAX`]).
    pub fn new(limit: usize) -> Inflight {
        assert!(limit <= INFLIGHT_MAX);
        Inflight { places: vec![Place::default(); limit], free: (0..limit).rev().map(|place| place as u16).collect() }
    }

    /// Whether another request may be sent.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Takes a place for a request that counts from `since`. `None` if there is no room.
    pub fn begin(&mut self, since: u64) -> Option<RequestId> {
        let free = self.free.pop()?;
        let place = &mut self.places[usize::from(free)];
        place.since = Some(since);
        place.uses += 1;
        Some(RequestId(place.uses << PLACE_BITS | u64::from(free)))
    }

    /// Frees the place of a request that was answered and returns its `since`. `None` if no such request waits: it
    /// was given up before, or the server made up the id.
    pub fn settle(&mut self, id: RequestId) -> Option<u64> {
        let index = (id.0 & (INFLIGHT_MAX as u64 - 1)) as u16;
        let place = self.places.get_mut(usize::from(index))?;
        if place.uses != id.0 >> PLACE_BITS {
            return None;
        }
        let since = place.since.take()?;
        self.free.push(index);
        Some(since)
    }

    /// Gives up every request that counts from before `deadline`; calls `lost` with the `since` of each.
    pub fn expire(&mut self, deadline: u64, mut lost: impl FnMut(u64)) {
        for (index, place) in self.places.iter_mut().enumerate() {
            if let Some(since) = place.since.take_if(|since| *since < deadline) {
                self.free.push(index as u16);
                lost(since);
            }
        }
    }
}
