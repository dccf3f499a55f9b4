use crossbeam_channel::{bounded, unbounded};

use super::reloading::Reloading;

#[test]
fn only_the_last_of_several_readings_is_the_end_of_them() {
    let (begun, begins) = unbounded();
    let (go_on, goes_on) = bounded(0);
    let (done_in, done) = unbounded();
    let read = move || {
        begun.send(()).unwrap();
        goes_on.recv().unwrap();
    };
    let mut reloading = Reloading::start(read, move || done_in.send(()).unwrap()).unwrap();
    reloading.ask();
    begins.recv().unwrap();
    // While they are being read: once more is enough for both.
    reloading.ask();
    reloading.ask();
    let mut ends = || {
        go_on.send(()).unwrap();
        done.recv().unwrap();
        reloading.has_read()
    };
    assert_eq!([ends(), ends()], [false, true]);
    reloading.ask();
    go_on.send(()).unwrap();
    done.recv().unwrap();
    assert!(reloading.has_read(), "and one by itself is");
    assert_eq!(begins.len(), 2);
}
