use crate::schedule::{Arrivals, Calendar, Schedule};

#[test]
fn arrivals_are_evenly_spaced_and_do_not_drift() {
    let mut arrivals = Arrivals::new(3, 0, 1);
    let times: Vec<u64> = (0..7)
        .map(|_| {
            let time = arrivals.due();
            arrivals.advance();
            time
        })
        .collect();
    assert_eq!(times, [0, 333_333_333, 666_666_666, 1_000_000_000, 1_333_333_333, 1_666_666_666, 2_000_000_000]);
}

#[test]
fn connections_share_the_arrivals_without_gap_or_overlap() {
    let mut times: Vec<u64> = (0..4)
        .flat_map(|conn| {
            let mut arrivals = Arrivals::new(1_000, conn, 4);
            (0..250).map(move |_| {
                let time = arrivals.due();
                arrivals.advance();
                time
            })
        })
        .collect();
    times.sort_unstable();
    assert_eq!(times, (0..1_000).map(|number| number * 1_000_000).collect::<Vec<_>>());
}

#[test]
fn a_stall_is_charged_to_every_request_that_it_held_up() {
    let mut schedule = Schedule::Open(Arrivals::new(1_000, 0, 1));
    // Nothing could be sent for 5 ms. All six requests that fell due count from when they should have left.
    let mut intended = Vec::new();
    while let Some(due) = schedule.due(5_000_000) {
        intended.push(due);
        schedule.sent();
    }
    assert_eq!(intended, [0, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000]);
    assert_eq!(schedule.due(5_999_999), None);
    assert_eq!(schedule.due(6_000_000), Some(6_000_000));
    assert_eq!(schedule.unsent(10_000_000), 4);
}

#[test]
fn a_closed_loop_is_always_due_now() {
    let mut schedule = Schedule::Closed;
    assert_eq!(schedule.due(17), Some(17));
    schedule.sent();
    assert_eq!(schedule.due(17), Some(17));
    assert_eq!(schedule.unsent(u64::MAX), 0);
}

#[test]
fn a_threads_calendar_is_that_of_its_connections() {
    // Five connections on two threads: 0, 2, 4 and 1, 3.
    for thread in 0..2 {
        let own: Vec<u64> = (thread..5).step_by(2).collect();
        let mut expected: Vec<(u64, usize)> = own
            .iter()
            .enumerate()
            .flat_map(|(place, &conn)| {
                let mut arrivals = Arrivals::new(700, conn, 5);
                (0..20).map(move |_| {
                    let due = arrivals.due();
                    arrivals.advance();
                    (due, place)
                })
            })
            .collect();
        expected.sort_unstable();
        let mut calendar = Calendar::new(700, 5, 2, thread);
        for (due, place) in expected {
            assert_eq!(calendar.due(), due);
            assert_eq!(calendar.pop(due.saturating_sub(1)), (due == 0).then_some(place));
            if due > 0 {
                assert_eq!(calendar.pop(due), Some(place));
            }
        }
    }
}
