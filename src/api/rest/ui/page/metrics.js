// Prometheus's text format, and what two looks at it say of the time between them.

const SERIES = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The series of a scrape. */
class Metrics {
  constructor(text) {
    this.series = new Map();
    for (const line of text.split("\n")) {
      const found = line.startsWith("#") ? null : SERIES.exec(line);
      if (!found) continue;
      const [, name, labels, value] = found;
      const all = this.series.get(name) ?? [];
      all.push({ labels: Object.fromEntries(labelsOf(labels)), value: Number(value) });
      this.series.set(name, all);
    }
  }

  all(name) {
    return this.series.get(name) ?? [];
  }

  sum(name, is = () => true) {
    return this.all(name).filter(({ labels }) => is(labels)).reduce((sum, { value }) => sum + value, 0);
  }

  /** How many values were at most so great, for each bound: `Map` from bound to count. */
  histogram(name, is = () => true) {
    const counts = new Map();
    for (const { labels, value } of this.all(`${name}_bucket`)) {
      if (!is(labels)) continue;
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + value);
    }
    return counts;
  }
}

function labelsOf(text) {
  return [...(text ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value]);
}

/** The time between two looks at the same process; null if it was another, which counts from 0 again. */
function interval(before, now) {
  const start = "process_start_time_seconds";
  if (!before || before.metrics.sum(start) !== now.metrics.sum(start)) return null;
  const seconds = now.clock_s - before.clock_s;
  return seconds > 0 ? { before: before.metrics, now: now.metrics, seconds } : null;
}

/** By how much a counter has grown in a second. */
function rate(between, name, is) {
  if (!between) return null;
  return Math.max(0, between.now.sum(name, is) - between.before.sum(name, is)) / between.seconds;
}

/** The values that have come to a histogram in between: bounds in their order, each with how many are at most so great. */
function grown(between, name, is) {
  if (!between) return [];
  const before = between.before.histogram(name, is);
  const counts = [...between.now.histogram(name, is)].map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
  return counts.sort(([one], [other]) => one - other);
}

/** A quantile of such values, as far as their buckets tell it; null without values. */
function quantile(counts, q) {
  const total = counts.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  const rank = q * total;
  let [low, below] = [0, 0];
  for (const [bound, count] of counts) {
    if (count >= rank) {
      // Nobody knows how far beyond the last bound.
      return bound === Infinity ? low : low + (bound - low) * ((rank - below) / (count - below));
    }
    [low, below] = [bound, count];
  }
  return low;
}

/** How many of them are surely greater than a bound, and the bucket's bound that this is known of. */
function above(counts, least) {
  const total = counts.at(-1)?.[1] ?? 0;
  const found = counts.find(([bound]) => bound >= least);
  return found && found[0] !== Infinity ? { bound: found[0], count: total - found[1] } : { bound: least, count: 0 };
}

const WRITES = ["put", "delete", "batch"];
const READS = ["get", "scan"];
/** What is no failure although it is not `ok`. */
const ANSWERS = ["ok", "not_found", "precondition_failed"];
const isWrite = ({ operation }) => WRITES.includes(operation);
const isRead = ({ operation }) => READS.includes(operation);
const isRefused = (labels) => (isWrite(labels) || isRead(labels)) && !ANSWERS.includes(labels.result);

