//! Watches a run: the progress line, and what the processes use while it is measured.

use std::thread;
use std::time::Duration;

use crate::meter::Meter;
use crate::process::Usage;
use crate::progress::Progress;
use crate::report::{faults_text, readable_us};

/// How quickly the end of the threads is noticed.
const PAUSE: Duration = Duration::from_millis(50);

/// What was used until the beginning and until the end of the window.
#[derive(Clone, Copy, Debug)]
pub struct Watched {
    /// By the servers, if their processes are known.
    pub servers: Option<(Usage, Usage)>,
    /// By the generator.
    pub client: (Usage, Usage),
    /// How often the servers had synced their logs, if they could say.
    pub syncs: Option<(u64, u64)>,
}

/// Prints the progress, and looks at the processes when the window opens and closes, until `finished`. `syncs` tells how
/// often the servers have synced so far.
pub fn watch(
    meter: &Meter,
    pids: &[u32],
    syncs: impl Fn() -> Option<u64>,
    finished: impl Fn() -> bool,
) -> Result<Watched, String> {
    let look = || Ok::<_, String>((Usage::of(pids)?, Usage::of_self()?, syncs()));
    let window = meter.window();
    let mut progress = Progress::default();
    let (mut begin, mut end) = (None, None);
    while !finished() {
        let now = meter.now();
        if now >= window.start && begin.is_none() {
            begin = Some(look()?);
        }
        if (now >= window.end || meter.stopped()) && end.is_none() {
            end = Some(look()?);
        }
        show(&mut progress, meter);
        let next = [window.start, window.end].into_iter().find(|&at| at > now).unwrap_or(u64::MAX);
        thread::park_timeout(PAUSE.min(Duration::from_nanos(next - now)));
    }
    progress.finish();
    let end = end.map_or_else(look, Ok)?;
    let begin = begin.unwrap_or(end);
    Ok(Watched {
        servers: (!pids.is_empty()).then_some((begin.0, end.0)),
        client: (begin.1, end.1),
        syncs: begin.2.zip(end.2),
    })
}

fn show(progress: &mut Progress, meter: &Meter) {
    let Some(passed) = progress.due() else { return };
    let (now, window) = (meter.now(), meter.window());
    let phase = match now {
        now if now < window.start => "warm-up",
        now if now < window.end => "measuring",
        _ => "waiting for the last replies",
    };
    let tally = meter.take_live();
    progress.show(&format!(
        "{:>4.0} s {phase}: {:>9.0} ops/s  p50 {}  p99 {}  errors {}",
        now as f64 / 1e9,
        tally.ops() as f64 / passed.as_secs_f64(),
        readable_us(tally.latency_us(0.5)),
        readable_us(tally.latency_us(0.99)),
        faults_text(&tally),
    ));
}
