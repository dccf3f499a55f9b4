// The elements of the page. Whatever comes from the node is set as text, and never as markup.

const element = (id) => document.getElementById(id);

function show(id, text) {
  setText(element(id), text);
}

/** Touches the page only where it changes, so that a selection stays. */
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** An alert with this text; none without. */
function alertWith(id, text) {
  element(id).hidden = !text;
  show(id, text ?? "");
}

/** Sets the rows of a table. A cell is a text, or a text and its class. */
function fill(table, rows) {
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    cells.forEach((cell, column) => {
      const [text, kind] = Array.isArray(cell) ? cell : [cell, ""];
      const place = row.cells[column] ?? row.insertCell();
      setText(place, String(text));
      if (place.className !== kind) place.className = kind;
    });
  });
}

/** Sets a list of terms, each with its value and, if need be, its class. */
function list(dl, entries) {
  while (dl.children.length > entries.length) dl.lastElementChild.remove();
  entries.forEach(([term, value, kind = ""], at) => {
    let place = dl.children[at];
    if (!place) {
      place = document.createElement("div");
      place.append(document.createElement("dt"), document.createElement("dd"));
      dl.append(place);
    }
    setText(place.firstElementChild, term);
    setText(place.lastElementChild, String(value));
    place.lastElementChild.className = kind;
  });
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3, notation: "compact" });

function number(value) {
  if (value === null || value === undefined) return "–";
  return value < 100_000 ? whole.format(value) : short.format(value);
}

function perSecond(value) {
  return value === null ? "–" : short.format(value);
}

const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function milliseconds(seconds) {
  if (seconds === null) return "–";
  return seconds < 1 ? `${threeDigits.format(seconds * 1000)} ms` : `${threeDigits.format(seconds)} s`;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = count > 0 ? Math.min(units.length - 1, Math.floor(Math.log2(count) / 10)) : 0;
  const scaled = count / 1024 ** step;
  return `${step === 0 || scaled >= 100 ? Math.round(scaled) : scaled.toFixed(1)} ${units[step]}`;
}

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86_400, (seconds % 86_400) / 3_600, (seconds % 3_600) / 60].map(Math.floor);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

const clockTime = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");

