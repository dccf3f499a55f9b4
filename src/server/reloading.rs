//! Reading the settings again, on a thread of its own: their file may lie on a disk that hangs, and whoever waits for it then
//! must neither keep the node from being stopped nor look dead to the service manager.

use std::io;

use crossbeam_channel::{Sender, bounded};

/// See the module.
#[derive(Debug)]
pub(super) struct Reloading {
    asked: Sender<()>,
}

impl Reloading {
    /// Starts the thread. `read` reads the settings; `done` is told each time that it has.
    pub(super) fn start(
        mut read: impl FnMut() + Send + 'static,
        done: impl Fn() + Send + 'static,
    ) -> io::Result<Reloading> {
        let (asked, questions) = bounded(1);
        let body = move || {
            for () in questions {
                read();
                done();
            }
        };
        std::thread::Builder::new().name("reload".to_owned()).spawn(body)?;
        Ok(Reloading { asked })
    }

    /// Has the settings read, once more if they are being read.
    pub(super) fn ask(&self) {
        // If the channel is full, they will be read after now as it is.
        self.asked.try_send(()).ok();
    }
}
