// The keys of all shards, a page at a time, and one of them. Keys and values are bytes: they are shown as text where they are
// UTF-8, and else in hexadecimal digits.

const PAGE_KEYS = 50;
/** Longer values are cut in the list, but not where one alone is shown. */
const LISTED_CHARACTERS = 200;

function fromBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** The text that bytes are; null if they are none that a person could read. */
function asText(data) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
    // Control characters, tab and line ends apart.
    return /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/.test(text) ? null : text;
  } catch {
    return null;
  }
}

function asHex(data) {
  return `0x${[...data].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

const shown = (data) => asText(data) ?? asHex(data);
const cut = (text) => (text.length > LISTED_CHARACTERS ? `${text.slice(0, LISTED_CHARACTERS)}…` : text);

/** Percent-encodes every byte that may not stand in a path as it is (RFC 3986 §2.3). */
function percentEncoded(data) {
  const plain = (byte) => /[A-Za-z0-9_~-]/.test(String.fromCharCode(byte));
  return [...data].map((byte) => (plain(byte) ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, "0")}`)).join("");
}

/** Where a key is. Browsers take `.` and `..` out of paths, however they are written. */
function keyPath(key) {
  const name = asText(key);
  if (name === "." || name === "..") throw new Error(`no browser can ask for the key ${name}: use raftkv-nc, or curl --path-as-is`);
  return `/v1/kv/${percentEncoded(key)}`;
}

class Keys {
  constructor() {
    this.mayWrite = false;
    this.cursor = null;
    this.chosen = null;
    element("keys-form").addEventListener("submit", (event) => { event.preventDefault(); this.read(null); });
    element("keys-first").addEventListener("click", () => this.read(null));
    element("keys-next").addEventListener("click", () => this.read(this.cursor));
    element("keys-new").addEventListener("click", () => this.choose(null));
    element("key").addEventListener("submit", (event) => { event.preventDefault(); this.put(); });
    element("key-delete").addEventListener("click", () => this.remove());
    element("key-close").addEventListener("click", () => { element("key").hidden = true; });
  }

  /** Whether keys may be written: the node may have been started anew with another setting. */
  allow(mayWrite) {
    if (this.mayWrite === mayWrite) return;
    this.mayWrite = mayWrite;
    element("keys-new").hidden = !mayWrite;
    element("key").hidden = true;
  }

  /** Reads the page behind a cursor; the first page without one. */
  async read(cursor) {
    const query = new URLSearchParams({ limit: PAGE_KEYS, page: true });
    const prefix = element("keys-prefix").value;
    if (prefix) query.set("prefix", prefix);
    if (cursor) query.set("cursor", cursor);
    alertWith("keys-fault", null);
    try {
      const { items, cursor: next } = await askJson(`/v1/kv?${query}`);
      this.cursor = next;
      this.list(items.map(({ key, value, version }) => ({ key: fromBase64(key), value: fromBase64(value), version })));
      element("keys-first").disabled = !cursor;
      element("keys-next").disabled = !next;
      show("keys-state", items.length === 0 ? "no keys" : `${items.length} keys${next ? ", more follow" : ""}`);
    } catch (error) {
      alertWith("keys-fault", `cannot read keys: ${error.message}`);
    }
  }

  list(items) {
    element("keys").hidden = items.length === 0;
    const rows = items.map(({ key, value, version }) => [
      ["", "key"], [cut(shown(value)), "value"], [String(version), "number"], [whole.format(value.length), "number"],
    ]);
    const body = element("keys").tBodies[0];
    // Anew, as each row's button means another key.
    body.replaceChildren();
    fill(element("keys"), rows);
    items.forEach((item, at) => {
      const button = document.createElement("button");
      button.className = "plain";
      button.textContent = cut(shown(item.key));
      button.addEventListener("click", () => this.choose(item));
      body.rows[at].cells[0].append(button);
    });
  }

  /** Shows one key alone; a new one if it is null. */
  choose(item) {
    this.chosen = item;
    const text = item ? asText(item.value) : "";
    element("key").hidden = false;
    element("key-name-label").hidden = item !== null;
    element("key-name").value = "";
    element("key-value").value = item ? shown(item.value) : "";
    const mayPut = this.mayWrite && text !== null;
    element("key-value").readOnly = !mayPut;
    element("key-put").hidden = !mayPut;
    element("key-delete").hidden = !this.mayWrite || item === null;
    alertWith("key-fault", null);
    show("key-title", item ? shown(item.key) : "New key");
    show("key-note", this.about(item, text));
    element("key").scrollIntoView({ block: "nearest" });
  }

  about(item, text) {
    if (!item) return "It is written only if there is no such key.";
    const what = `version ${item.version}, ${whole.format(item.value.length)} bytes${text === null ? ", not text: in hexadecimal digits" : ""}`;
    return this.mayWrite ? `${what}. It is written or deleted only if nobody has changed it since it was read.` : what;
  }

  async put() {
    const value = new TextEncoder().encode(element("key-value").value);
    const item = this.chosen;
    const key = item ? item.key : new TextEncoder().encode(element("key-name").value);
    const condition = item ? { "If-Match": `"${item.version}"` } : { "If-None-Match": "*" };
    await this.write(key, { method: "PUT", headers: condition, body: value });
  }

  async remove() {
    const { key, version } = this.chosen;
    if (!confirm(`Delete ${cut(shown(key))}?`)) return;
    await this.write(key, { method: "DELETE", headers: { "If-Match": `"${version}"` } });
  }

  async write(key, options) {
    try {
      if (key.length === 0) throw new Error("a key has at least one byte");
      await ask(keyPath(key), options);
      element("key").hidden = true;
      await this.read(null);
    } catch (error) {
      const isRefusal = error instanceof Refusal && error.status !== 504;
      alertWith("key-fault", isRefusal ? `nothing was written: ${error.message}` : `it is not known whether it was written: ${error.message}`);
    }
  }
}

