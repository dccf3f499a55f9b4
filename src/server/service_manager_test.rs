use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use raftkv_protocol::types::CoreId;

use super::service_manager::ServiceManager;
use super::vitals::{HANGS_AFTER, Vitals};

struct Listener(UnixDatagram);

impl Listener {
    /// What has come, message by message.
    fn heard(&self) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 1_024];
        while let Ok(bytes) = self.0.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..bytes]).into_owned());
        }
        heard
    }
}

fn manager(watchdog: Option<Duration>) -> (ServiceManager, Listener) {
    let (ours, theirs) = UnixDatagram::pair().expect("a pair of sockets");
    theirs.set_nonblocking(true).expect("it can be");
    (ServiceManager::new(Some(ours), watchdog), Listener(theirs))
}

#[test]
fn it_is_told_once_that_the_node_serves() {
    let (mut manager, listener) = manager(None);
    let (vitals, now) = (Vitals::new(2), Instant::now());
    manager.starting();
    manager.tick(&vitals, now);
    manager.tick(&vitals, now);
    let heard = listener.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(heard[0], "STATUS=starting: reading the log and the snapshots");
    assert!(heard[1].starts_with("STATUS=") && heard[1].contains("no known leader"), "{heard:?}");
    vitals.note(CoreId(0), now, &[]);
    manager.tick(&vitals, now);
    assert_eq!(listener.heard(), [""; 0], "one core is not the node");
    vitals.note(CoreId(1), now, &[]);
    manager.tick(&vitals, now);
    manager.tick(&vitals, now);
    assert_eq!(listener.heard(), ["READY=1\nSTATUS=serving: every shard has a leader"]);
}

#[test]
fn it_hears_that_the_node_lives_only_while_every_core_turns() {
    let watchdog = Duration::from_secs(4);
    let (mut manager, listener) = manager(Some(watchdog));
    let (vitals, start) = (Vitals::new(2), Instant::now());
    let mut lives_at = |seconds: u64, cores: &[u16]| {
        let now = start + Duration::from_secs(seconds);
        cores.iter().for_each(|core| vitals.note(CoreId(*core), now, &[]));
        manager.tick(&vitals, now);
        listener.heard().concat().contains("WATCHDOG=1")
    };
    assert!(lives_at(0, &[0, 1]));
    assert!(!lives_at(1, &[0, 1]), "that is too early");
    assert!(lives_at(2, &[0, 1]));
    assert!(lives_at(4, &[0]), "the other one may be idle");
    assert!(!lives_at(2 + HANGS_AFTER.as_secs(), &[0]), "the other one hangs");
    assert!(lives_at(8, &[0, 1]));
}

#[test]
fn it_is_told_of_a_reload_if_it_knows_that_the_node_serves() {
    let (mut manager, listener) = manager(None);
    let (vitals, now) = (Vitals::new(1), Instant::now());
    manager.reloading();
    manager.reloaded();
    assert_eq!(listener.heard(), [""; 0]);
    vitals.note(CoreId(0), now, &[]);
    manager.tick(&vitals, now);
    listener.heard();
    manager.reloading();
    manager.reloaded();
    manager.stopping();
    let heard = listener.heard();
    assert!(heard[0].starts_with("RELOADING=1\nMONOTONIC_USEC="), "{heard:?}");
    assert!(heard[1].starts_with("READY=1\n") && heard[2].starts_with("STOPPING=1\n"), "{heard:?}");
    assert_eq!(heard.len(), 3, "{heard:?}");
}

#[test]
fn nobody_is_waited_for() {
    let (mut manager, listener) = manager(None);
    assert!(manager.patience().is_some_and(|patience| patience < Duration::from_secs(1)));
    drop(listener);
    manager.stopping();
    assert_eq!(ServiceManager::new(None, None).patience(), None);
}
