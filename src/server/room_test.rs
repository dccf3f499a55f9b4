//! Who gets a core's room for replies, and when.

use super::budget::Debt;
use super::message::{Charge, ConnectionId, Reader};
use super::room::{Place, ReplyBytes, Room};
use crate::limits::Limits;

/// A core's replies may have 10,000 bytes.
fn core() -> ReplyBytes {
    ReplyBytes::new(&Limits { core_reply_bytes_max: 10_000, ..Limits::default() })
}

fn connection(slot: u32) -> Reader {
    Reader::Connection(ConnectionId { slot, generation: slot })
}

/// A connection brings a read, which is taken in if there is room.
fn bring(core: &mut ReplyBytes, slot: u32, bytes: u32) -> Room {
    let room = core.ask(connection(slot), bytes as usize);
    if room == Room::Now {
        core.add(Charge::Read(bytes));
    }
    room
}

fn place(room: Room) -> Place {
    match room {
        Room::Later(place) => place,
        room => panic!("it need not wait: {room:?}"),
    }
}

/// The core's next turn: whose reads it goes on with. Each connection has no more than the read that waits.
fn turn(core: &mut ReplyBytes, reads: &[(u32, u32)]) -> Vec<u32> {
    let end = core.end();
    let mut called = Vec::new();
    while let Some(reader) = core.call(end) {
        let Reader::Connection(id) = reader else { panic!("not a connection: {reader:?}") };
        let (_, bytes) = reads.iter().find(|(slot, _)| *slot == id.slot).expect("it waits");
        assert_eq!(bring(core, id.slot, *bytes), Room::Now, "connection {}", id.slot);
        called.push(id.slot);
    }
    called
}

#[test]
fn a_core_takes_reads_up_to_its_limit_then_they_wait_for_those_under_way() {
    let rooms = [999, 1_000, 1_001].map(|bytes| {
        let mut core = core();
        core.count_unread(&mut 0, 4_000);
        core.add(Charge::Read(5_000));
        core.ask(connection(1), bytes)
    });
    assert_eq!(rooms[..2], [Room::Now, Room::Now]);
    place(rooms[2]);
}

#[test]
fn a_core_whose_clients_do_not_read_takes_no_reads() {
    let rooms = [9_999, 10_000, 10_001].map(|unread| {
        let mut core = core();
        core.count_unread(&mut 0, unread);
        core.ask(connection(1), 1)
    });
    assert_eq!(rooms, [Room::Now, Room::No, Room::No]);
}

/// However much lies unread, and whatever else is under way that is no read: that may always be so.
#[test]
fn a_read_beside_which_no_other_is_under_way_is_taken_in_whatever_it_may_weigh() {
    let mut core = core();
    core.count_unread(&mut 0, 9_000);
    core.add(Charge::Other(500));
    assert_eq!(bring(&mut core, 1, 20_000), Room::Now);
    place(bring(&mut core, 2, 20_000));
    place(bring(&mut core, 3, 1));
    assert_eq!(turn(&mut core, &[]), [0; 0]);
    core.settle(Charge::Read(20_000));
    assert_eq!(turn(&mut core, &[(2, 20_000)]), [2], "one at a time");
    core.settle(Charge::Read(20_000));
    assert_eq!(turn(&mut core, &[(3, 1)]), [3]);
}

/// There is room for another short read whenever one is answered, and none for the long one.
#[test]
fn a_long_read_is_not_overtaken_by_short_ones() {
    let mut core = core();
    for slot in 1..=4 {
        assert_eq!(bring(&mut core, slot, 1_000), Room::Now);
    }
    place(bring(&mut core, 9, 8_000));
    place(bring(&mut core, 5, 1_000));
    assert_eq!(turn(&mut core, &[]), [0; 0], "4 short ones");
    core.settle(Charge::Read(1_000));
    place(bring(&mut core, 6, 1_000));
    assert_eq!(turn(&mut core, &[]), [0; 0], "3 short ones");
    core.settle(Charge::Read(1_000));
    place(bring(&mut core, 7, 1_000));
    assert_eq!(turn(&mut core, &[(9, 8_000)]), [9]);
    core.settle(Charge::Read(8_000));
    place(bring(&mut core, 8, 1_000));
    assert_eq!(turn(&mut core, &[5, 6, 7, 8].map(|slot| (slot, 1_000))), [5, 6, 7, 8]);
    assert_eq!((core.waiting(), core.is_due()), (0, false));
    assert_eq!(bring(&mut core, 10, 1_000), Room::Now, "nobody waits");
}

#[test]
fn who_leaves_the_queue_is_waited_for_no_longer() {
    let mut core = core();
    let mut debt = Debt::default();
    debt.add(Charge::Read(2_500));
    core.add(Charge::Read(2_500));
    let first = place(bring(&mut core, 1, 8_000));
    place(bring(&mut core, 2, 7_500));
    place(bring(&mut core, 3, 1_000));
    assert!(!core.is_due());
    assert_eq!(core.leave(first), Some(connection(1)));
    assert_eq!(turn(&mut core, &[(2, 7_500)]), [2]);
    core.settle(Charge::Read(7_500));
    assert_eq!(turn(&mut core, &[(3, 1_000)]), [3]);
    // A connection is gone with what was under way for it.
    place(bring(&mut core, 4, 9_000));
    core.write_off(&debt);
    assert_eq!(turn(&mut core, &[(4, 9_000)]), [4]);
}

#[test]
fn a_read_that_weighs_more_by_now_keeps_its_place() {
    let mut core = core();
    core.add(Charge::Read(1_000));
    core.add(Charge::Read(9_000));
    let first = place(bring(&mut core, 1, 5_000));
    place(bring(&mut core, 2, 5_000));
    core.settle(Charge::Read(9_000));
    let end = core.end();
    assert_eq!(core.call(end), Some(connection(1)));
    assert_eq!(bring(&mut core, 1, 9_500), Room::Later(first));
    assert_eq!(core.call(end), None, "the second does not overtake it");
    core.settle(Charge::Read(1_000));
    assert_eq!(turn(&mut core, &[(1, 9_500)]), [1]);
}

/// Otherwise a connection that has sent many reads would wait again after each of them, however much room there is.
#[test]
fn whose_turn_it_is_goes_on_for_as_long_as_room_is_left_for_all_that_wait() {
    let mut core = core();
    core.add(Charge::Read(9_500));
    place(bring(&mut core, 1, 1_000));
    place(bring(&mut core, 2, 2_000));
    core.settle(Charge::Read(9_500));
    let end = core.end();
    assert_eq!(core.call(end), Some(connection(1)));
    place(bring(&mut core, 3, 100));
    for read in 0..7 {
        assert_eq!(bring(&mut core, 1, 1_000), Room::Now, "read {read}");
    }
    place(bring(&mut core, 1, 1_000));
    assert_eq!(core.call(end), Some(connection(2)));
    assert_eq!(bring(&mut core, 2, 2_000), Room::Now);
    assert_eq!(core.call(end), None, "the others came later");
    assert!(core.is_due());
    assert_eq!(turn(&mut core, &[(3, 100)]), [3]);
}

#[test]
fn all_that_wait_are_refused_once_too_much_lies_unread() {
    let mut core = core();
    core.add(Charge::Read(9_500));
    place(bring(&mut core, 1, 1_000));
    place(bring(&mut core, 2, 1_000));
    let mut counted = 0;
    core.count_unread(&mut counted, 10_000);
    let end = core.end();
    for slot in [1, 2] {
        assert_eq!(core.call(end), Some(connection(slot)));
        assert_eq!(bring(&mut core, slot, 1_000), Room::No);
    }
    assert_eq!((core.call(end), core.is_due()), (None, false));
    core.count_unread(&mut counted, 0);
    assert_eq!(bring(&mut core, 3, 500), Room::Now);
}
