// What the node is, its cluster and its shards, as tables.

/** By follower: the greatest lag in the shards that the asked node leads. */
function lags(metrics) {
  const found = new Map();
  for (const { labels, value } of metrics.all("raftkv_shard_follower_lag_entries")) {
    found.set(labels.follower, Math.max(value, found.get(labels.follower) ?? 0));
  }
  return found;
}

/** By node: whether all links to it are up. */
function links(metrics) {
  const found = new Map();
  for (const { labels, value } of metrics.all("raftkv_link_up")) {
    found.set(labels.node, value === 1 && (found.get(labels.node) ?? true));
  }
  return found;
}

function showHeader({ status, metrics }) {
  const up = Date.now() / 1000 - metrics.sum("process_start_time_seconds");
  show("node-name", `node ${status.node_id}`);
  show("node-facts", `cluster ${status.cluster_id} · version ${status.version} · up ${duration(Math.max(0, up))}`);
  document.title = `RaftKV node ${status.node_id}`;
}

function showNow({ status, metrics }, latest) {
  const led = status.shards.filter(({ role }) => role === "leader").length;
  const leaderless = status.shards.filter(({ leader }) => leader === null).length;
  list(element("now"), [
    ["writes a second", perSecond(latest.writes)],
    ["reads a second", perSecond(latest.reads)],
    ["refused a second", perSecond(latest.refused), latest.refused > 0 ? "bad" : ""],
    ["p99 of writes", milliseconds(latest.write_p99)],
    ["p99 of reads", milliseconds(latest.read_p99)],
    ["leads shards", `${led} of ${status.shards.length}`],
    ["without a leader", leaderless, leaderless > 0 ? "bad" : ""],
    ["keys", number(metrics.sum("raftkv_shard_keys"))],
    ["disk", status.disk, status.disk === "healthy" ? "good" : "bad"],
    ["connections", number(metrics.sum("raftkv_connections_open"))],
    ["memory", bytes(metrics.sum("process_resident_memory_bytes"))],
    ["log on disk", bytes(metrics.sum("raftkv_log_disk_bytes"))],
  ]);
}

function showNodes({ status, metrics }) {
  const [lag, up] = [lags(metrics), links(metrics)];
  const rows = status.members.map(({ id, address }) => {
    const isHere = id === status.node_id;
    const led = status.shards.filter(({ leader }) => leader === id).length;
    const link = isHere ? ["this node", "here"] : up.get(String(id)) ? ["up", "good"] : ["down", "bad"];
    const behind = lag.get(String(id));
    return [[`node ${id}`, isHere ? "here" : ""], address, link, [led, "number"], [isHere ? "" : number(behind), "number"]];
  });
  fill(element("nodes"), rows);
}

function shardState({ repairing, diverged, leader }) {
  if (diverged) return [diverged, "bad"];
  if (repairing) return ["being repaired", "warn"];
  return leader === null ? ["no leader", "bad"] : ["", ""];
}

function showShards({ status, metrics }) {
  const behind = new Map();
  for (const { labels, value } of metrics.all("raftkv_shard_follower_lag_entries")) {
    const lag = `node ${labels.follower}: ${number(value)}`;
    behind.set(labels.shard, [...(behind.get(labels.shard) ?? []), lag]);
  }
  const rows = status.shards.map((shard) => {
    const isHere = shard.leader === status.node_id;
    const leader = shard.leader === null ? ["none", "bad"] : [`node ${shard.leader}`, isHere ? "here" : ""];
    const indexes = ["term", "commit", "applied", "persisted", "last_index", "snapshot_index"];
    const numbers = [...indexes.map((name) => shard[name]), shard.keys].map((value) => [whole.format(value), "number"]);
    const role = shard.role.replace("_", "-");
    return [[shard.id, "number"], leader, role, ...numbers, (behind.get(String(shard.id)) ?? []).join(", "), shardState(shard)];
  });
  fill(element("shards"), rows);
}

function showTotals({ settings, status, metrics }) {
  const by = (name, value) => (labels) => labels[name] === value;
  const slow_s = settings.slow_sync_ms / 1000;
  const syncs = [...metrics.histogram("raftkv_log_sync_seconds")].sort(([one], [other]) => one - other);
  const slow = above(syncs, slow_s);
  const terms = status.shards.map(({ term }) => term);
  list(element("totals"), [
    ["elections stood in", number(metrics.sum("raftkv_shard_elections_total"))],
    ["changes of leaders", number(metrics.sum("raftkv_leader_changes_total"))],
    ["highest term", number(Math.max(0, ...terms))],
    ["shards handed over", number(metrics.sum("raftkv_leadership_transfers_total"))],
    ["syncs of the log", number(syncs.at(-1)?.[1] ?? 0)],
    [`syncs over ${milliseconds(slow.bound)}`, number(slow.count), slow.count > 0 ? "warn" : ""],
    ["times the disk was slow", number(metrics.sum("raftkv_disk_faults_total", by("kind", "slow")))],
    ["times it was full", number(metrics.sum("raftkv_disk_faults_total", by("kind", "full")))],
    ["snapshots taken", number(metrics.sum("raftkv_snapshots_total", by("event", "taken")))],
    ["requests", number(metrics.sum("raftkv_requests_received_total"))],
  ]);
}

