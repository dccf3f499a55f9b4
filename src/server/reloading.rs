//! Reading the settings again, on a thread of its own: their file may lie on a disk that hangs, and whoever waits for it then
//! must neither keep the node from being stopped nor look dead to the service manager.

use std::io;

use crossbeam_channel::{Sender, bounded};

/// See the module.
#[derive(Debug)]
pub(super) struct Reloading {
    asked: Sender<()>,
    /// How often they are still to be read, or are being read.
    to_come: u64,
}

impl Reloading {
    /// Starts the thread. `read` reads the settings; `done` is told each time that it has, and [`Reloading::has_read`] is then to be.
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
        Ok(Reloading { asked, to_come: 0 })
    }

    /// Has the settings read, once more if they are being read.
    pub(super) fn ask(&mut self) {
        // If the channel is full, they will be read after now as it is.
        self.to_come += u64::from(self.asked.try_send(()).is_ok());
    }

    /// They have been read once. Whether that was the last time that they were asked for.
    pub(super) fn has_read(&mut self) -> bool {
        self.to_come -= 1;
        self.to_come == 0
    }
}
