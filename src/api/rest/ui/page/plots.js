// The plots of the last minutes. The page keeps their points itself: the node tells only what is now.

const HISTORY_S = 300;
/** A page that was just opened shows so much, for its lines to be seen. */
const SHOWN_S_MIN = 60;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Lines over time, with a legend that shows the newest values unless the pointer is at others. */
class Plot {
  constructor(place, { names, format }) {
    this.place = place;
    this.names = names;
    this.format = format;
    this.data = [[], ...names.map(() => [])];
    this.draw();
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(place);
  }

  size() {
    return { width: Math.max(200, this.place.clientWidth), height: 190 };
  }

  /** Makes the drawing; again when the colours are others. */
  draw() {
    this.plot?.destroy();
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const lines = this.names.map((label, at) => ({
      label,
      stroke: colour(`--series-${(at % 8) + 1}`),
      width: 1.5,
      points: { size: 3 },
      value: (_, value) => (value === null || value === undefined ? "–" : this.format(value)),
    }));
    const options = {
      ...this.size(),
      series: [{ label: "at", value: (_, at) => (at ? clockTime(at) : "–") }, ...lines],
      axes: [
        {
          ...axis,
          incrs: [10, 20, 30, 60],
          space: 60,
          values: (_, ticks, _axis, _space, step) => ticks.map((at) => clockTime(at).slice(0, step < 60 ? 8 : 5)),
        },
        { ...axis, size: 56, values: (_, ticks) => ticks.map(this.format) },
      ],
      scales: {
        x: { time: false, range: () => this.span() },
        y: { range: (_, least, most) => [0, most > 0 ? most * 1.1 : 1] },
      },
      cursor: { y: false, points: { size: 6 } },
    };
    this.plot = new uPlot(options, this.data, this.place);
    this.showNewest();
  }

  span() {
    const newest = this.data[0].at(-1) ?? Date.now() / 1000;
    const known_s = newest - (this.data[0][0] ?? newest);
    return [newest - Math.min(HISTORY_S, Math.max(SHOWN_S_MIN, known_s)), newest];
  }

  /** Values of a time; null where there is none. */
  add(at, values) {
    const [times, ...lines] = this.data;
    times.push(at);
    lines.forEach((line, place) => line.push(values[place] ?? null));
    while (times[0] < at - HISTORY_S) this.data.forEach((line) => line.shift());
    this.plot.setData(this.data);
    this.showNewest();
  }

  showNewest() {
    if (!(this.plot.cursor.left >= 0)) this.plot.setLegend({ idx: this.data[0].length - 1 });
  }
}

const inMilliseconds = (seconds) => (seconds === null ? null : seconds * 1000);

/** All plots of the page. They are made when the node's peers are known. */
class Plots {
  constructor(status) {
    this.followers = status.members.filter(({ id }) => id !== status.node_id).map(({ id }) => String(id));
    const plot = (id, names, format) => new Plot(element(id), { names, format });
    const few = (value) => short.format(value);
    this.rates = plot("plot-rates", ["writes", "reads", "refused"], few);
    this.latency = plot("plot-latency", ["writes p50", "writes p99", "reads p50", "reads p99"], few);
    this.syncs = plot("plot-syncs", ["p50", "p99", "in flight"], few);
    this.lag = plot("plot-lag", this.followers.map((id) => `node ${id}`), few);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.all().forEach((plot) => plot.draw()));
  }

  all() {
    return [this.rates, this.latency, this.syncs, this.lag];
  }

  add(seen, latest) {
    const { at, metrics, status } = seen;
    const lag = lags(metrics);
    this.rates.add(at, [latest.writes, latest.reads, latest.refused]);
    this.latency.add(at, [latest.write_p50, latest.write_p99, latest.read_p50, latest.read_p99].map(inMilliseconds));
    this.syncs.add(at, [...[latest.sync_p50, latest.sync_p99].map(inMilliseconds), status.sync_ms]);
    this.lag.add(at, this.followers.map((id) => lag.get(id) ?? null));
  }

  /** The node cannot be reached: the lines end here. */
  gap(at) {
    this.all().forEach((plot) => plot.add(at, []));
  }
}

/** What the time between two looks says. */
function measure(before, now) {
  const between = interval(before, now);
  const times = (is) => grown(between, "raftkv_request_seconds", is);
  const [writes, reads] = [times(isWrite), times(isRead)];
  const syncs = grown(between, "raftkv_log_sync_seconds");
  return {
    between,
    syncs,
    writes: rate(between, "raftkv_requests_total", isWrite),
    reads: rate(between, "raftkv_requests_total", isRead),
    refused: rate(between, "raftkv_requests_total", isRefused),
    write_p50: quantile(writes, 0.5),
    write_p99: quantile(writes, 0.99),
    read_p50: quantile(reads, 0.5),
    read_p99: quantile(reads, 0.99),
    sync_p50: quantile(syncs, 0.5),
    sync_p99: quantile(syncs, 0.99),
  };
}

