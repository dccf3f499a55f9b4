//! Catches the panic of a run and keeps its words, without the noise that a panic makes.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
    static WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `work`; `Err` is what it panicked with, and where.
pub fn catch(work: impl FnOnce()) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IS_CAUGHT.get() {
                let place = info.location().map_or_else(String::new, |place| format!(" ({place})"));
                let words = info.payload_as_str().unwrap_or("a panic without words");
                WORDS.set(format!("{words}{place}"));
            } else {
                before(info);
            }
        }));
    });
    IS_CAUGHT.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(false);
    result.map_err(|_| WORDS.take())
}
