// The page asks once a second, less often if an answer takes long or nobody looks, and shows what it hears.

const PAUSE_MS = 1_000;
const PAUSE_UNSEEN_MS = 10_000;
/** Between attempts to reach a node that does not answer. */
const PAUSE_FAILED_MS_MAX = 5_000;

const page = { seen: null, plots: null, keys: new Keys(), failed_since: null, failures: 0 };

function showAll(seen) {
  const before = page.seen;
  const latest = measure(before, seen);
  page.seen = seen;
  page.plots ??= new Plots(seen.status);
  showHeader(seen);
  showNow(seen, latest);
  showNodes(seen);
  showShards(seen);
  showTotals(seen);
  noteChanges(before, seen, latest);
  page.plots.add(seen, latest);
}

function reached(at) {
  if (page.failed_since !== null) note(at, `the node answers again, after ${duration(at - page.failed_since)}`);
  page.failed_since = null;
  page.failures = 0;
  alertWith("banner", null);
  document.body.classList.remove("stale");
}

function failed(error) {
  const now = Date.now() / 1000;
  if (page.failed_since === null) {
    page.failed_since = now;
    page.plots?.gap(now);
    note(now, `the node does not answer: ${error.message}`, "bad");
  }
  page.failures += 1;
  const name = page.seen ? `Node ${page.seen.status.node_id}` : "The node";
  const where = `${name} at ${location.host}`;
  const words = error instanceof Refusal
    ? `${where} does not tell its state: ${error.message}`
    : `${where} is not reachable since ${clockTime(page.failed_since)}; it is asked again and again. What is shown is as of then.`;
  alertWith("banner", words);
  document.body.classList.add("stale");
}

/** What the node says now; null if it does not. */
async function heard() {
  try {
    const seen = await look();
    reached(seen.at);
    return seen;
  } catch (error) {
    failed(error);
    return null;
  }
}

/** The next turn, unless one is under way. */
let timer = null;

async function turn() {
  timer = null;
  const seen = await heard();
  const usual = document.hidden ? PAUSE_UNSEEN_MS : PAUSE_MS;
  // A node whose answers take long has many shards, or much to do.
  const pause = seen ? Math.max(usual, 10 * seen.took_ms) : Math.min(PAUSE_FAILED_MS_MAX, PAUSE_MS * 2 ** (page.failures - 1));
  timer = setTimeout(turn, pause);
  if (!seen) return;
  showAll(seen);
  page.keys.allow(seen.settings.write);
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || timer === null) return;
  clearTimeout(timer);
  turn();
});

turn();
