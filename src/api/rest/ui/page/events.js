// What has happened while the page is open: elections, slow syncs, links and the node itself that came and went.

const EVENTS_MAX = 200;

function note(at, text, kind = "") {
  const item = document.createElement("li");
  const time = document.createElement("time");
  time.dateTime = new Date(at * 1000).toISOString();
  time.textContent = clockTime(at);
  const words = document.createElement("span");
  words.textContent = text;
  words.className = kind;
  item.append(time, words);
  const events = element("events");
  events.prepend(item);
  while (events.children.length > EVENTS_MAX) events.lastElementChild.remove();
  element("events-none").hidden = true;
}

/** Shards that have changed in the same way are one event: a node that ends gives away all that it leads. */
function noteElections(before, now) {
  const changes = new Map();
  now.status.shards.forEach((shard) => {
    const old = before.status.shards.find(({ id }) => id === shard.id);
    if (!old || (old.term === shard.term && old.leader === shard.leader)) return;
    const name = (leader) => (leader === null ? "nobody" : `node ${leader}`);
    const words = old.leader === shard.leader
      ? `led by ${name(shard.leader)} in a later term`
      : `led by ${name(shard.leader)} instead of ${name(old.leader)}`;
    const same = changes.get(words) ?? [];
    same.push(`${shard.id} (term ${shard.term})`);
    changes.set(words, same);
  });
  for (const [words, shards] of changes) {
    note(now.at, `${shards.length === 1 ? "shard" : "shards"} ${shards.join(", ")} ${words}`);
  }
}

function noteSyncs(before, now, latest) {
  const slow = above(latest.syncs, now.settings.slow_sync_ms / 1000);
  if (slow.count > 0) note(now.at, `${slow.count} slow: a sync of the log took longer than ${milliseconds(slow.bound)}`, "warn");
  const is = ({ status, settings }) => status.sync_ms >= settings.slow_sync_ms;
  if (is(now) && !is(before)) note(now.at, `a sync of the log has taken ${now.status.sync_ms} ms and goes on`, "warn");
  if (before.status.disk !== now.status.disk) {
    note(now.at, `the disk is ${now.status.disk} now`, now.status.disk === "healthy" ? "" : "warn");
  }
}

function noteLinks(before, now) {
  const old = links(before.metrics);
  for (const [node, isUp] of links(now.metrics)) {
    if (old.has(node) && old.get(node) !== isUp) {
      note(now.at, `the link to node ${node} is ${isUp ? "up" : "down"}`, isUp ? "" : "bad");
    }
  }
}

function noteChanges(before, now, latest) {
  if (!before) return;
  if (!latest.between) note(now.at, `node ${now.status.node_id} has started anew: its counters count from 0 again`, "warn");
  noteElections(before, now);
  noteSyncs(before, now, latest);
  noteLinks(before, now);
}

