"use strict";

// Asking the node that this page came from. It asks nobody else: the policy of the page would not let it.

/** How long an answer may take. */
const ANSWER_MS_MAX = 10_000;

/** The node has answered, and it was a no. */
class Refusal extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

/** A successful response, or a `Refusal` with the node's words. Throws something else if there is no answer. */
async function ask(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS_MAX), ...options });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Refusal(response.status, problem.detail ?? `the node answers with status ${response.status}`);
}

async function askJson(path) {
  return (await ask(path)).json();
}

/** What the node says of itself at one time. */
async function look() {
  const began = performance.now();
  // The settings too: the node may have been started anew between two looks, with others.
  const [settings, status, text] = await Promise.all([
    askJson("/v1/ui"),
    askJson("/v1/status"),
    ask("/metrics").then((response) => response.text()),
  ]);
  const clock = performance.now();
  return { at: Date.now() / 1000, clock_s: clock / 1000, took_ms: clock - began, settings, status, metrics: new Metrics(text) };
}

