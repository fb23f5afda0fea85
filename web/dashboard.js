// The live view of the KV cache: one event stream, drawn when something new came.

import {ApiError, events} from "./api.js";
import {$, bar, bytes, make, setText, table} from "./dom.js";
import {LONGEST, drawSteps, stepAt} from "./steps.js";
import {drawMap, squareAt} from "./map.js";

const MISSES = {none: "all was cached", never_seen: "never seen", diverged: "another token", evicted: "given up", window: "out of window"};
const SILENT_MS = 5000;  // an event comes each half second

let last = null;     // the last event
let last_ms = 0;     // when it came
let steps = [];      // of the last minutes: {id, ms, decode, prefill, limit_ms}
let pointed = null;  // where the pointer is on a canvas
let scheduled = false;

const drawn = new Map();  // by place, what is there
const holdsSelection = (node) => !getSelection().isCollapsed && getSelection().containsNode(node, true);

/** Fills a place with what `nodes` makes of the data, unless it is there already or somebody is about to copy it. */
function fill(id, data, nodes) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text || holdsSelection($(id))) return;
  drawn.set(id, text);
  $(id).replaceChildren(...[nodes(data)].flat());
}

function drawTip() {
  const tip = $("tip"), text = last && pointed && (pointed.target === $("map") ? squareAt(last, pointed) : stepAt(pointed));
  tip.hidden = !text;
  if (!text) return;
  setText(tip, text);
  const {clientX: x, clientY: y} = pointed, {offsetWidth: width, offsetHeight: height} = tip;
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - width - 4))}px`;
  tip.style.top = `${y - height - 14 > 4 ? y - height - 14 : y + 20}px`;  // above: a finger hides what is below
}

function drawPool() {
  const {pool} = last;
  const count = (n) => n.toLocaleString("en");
  fill("pool", [
    [`${(100 * pool.usage).toFixed(1)}%`, "in use"],
    [count(pool.blocks), `blocks of ${pool.block_tokens} tokens, ${bytes(pool.block_bytes)}`], [count(pool.referenced), "held"],
    [count(pool.cached_idle), "cached"], [count(pool.free), "free"], [count(pool.evicted_blocks), "given up so far"],
  ], (figures) => figures.map(([value, text]) => make("span", {}, make("b", {}, value), text)));
}

const stateOf = (s) => s.state !== "running" ? s.state.replaceAll("_", " ") : s.computed_tokens < s.prompt_tokens ? "prefill" : "decode";

function drawRequests() {
  const sum = (what) => last.tenants.reduce((n, t) => n + t[what], 0);
  setText($("served"), last.sequences_total ? `${sum("running")} running, ${sum("waiting")} waiting` : "");
  const more = last.sequences_total - last.sequences.length;
  fill("requests", last.sequences, (all) => all.length ? [table(
    ["id", "tenant", "state", "prompt", "cached", "prefill", "output", "blocks", "age"],
    all.map((s) => [String(s.id), s.tenant || "–", stateOf(s), s.prompt_tokens, s.cached_tokens,
                    bar(Math.min(1, s.computed_tokens / s.prompt_tokens)), s.output_tokens, s.blocks, `${s.age_s.toFixed(1)} s`])),
    ...(more > 0 ? [make("p", {class: "dim"}, `and ${more} more`)] : [])] : ["nobody is served now"]);
}

function drawTables() {
  const ms = (v) => (v ? `${v.toFixed(1)} ms` : "–");
  fill("latency", last.latency, ({ttft_ms, itl_ms}) => table(["last minutes", "p50", "p90", "p99"], [
    ["first token", ms(ttft_ms.p50), ms(ttft_ms.p90), ms(ttft_ms.p99)],
    ["between tokens", ms(itl_ms.p50), ms(itl_ms.p90), ms(itl_ms.p99)]]));
  fill("misses", Object.entries(last.misses), (all) => {
    const sum = all.reduce((n, [, count]) => n + count, 0) || 1;
    return table(["reason", "prompts", ""], all.map(([name, n]) => [MISSES[name] || name, n, bar(n / sum)]));
  });
  fill("tenants", last.tenants, (all) => table(["tenant", "running", "waiting", "blocks", "quota", "weight", "served"],
    all.map((t) => [t.name || "everybody", t.running, t.waiting, t.blocks, t.quota_blocks || "–", t.weight, Math.round(t.served_tokens)])));
  fill("memory", [last.memory, last.resident_bytes], ([owners, resident]) => {
    const most = Math.max(...owners.map((m) => m.bytes), 1);
    return [table(["owner", "", ""], owners.map((m) => [make("span", {title: m.what}, m.owner), bytes(m.bytes), bar(m.bytes / most)])),
            make("p", {class: "dim"}, `resident: ${bytes(resident)}`)];
  });
  fill("counters", last.counters, (all) =>
    table(["", ""], Object.entries(all).map(([name, n]) => [name.replaceAll("_", " "), Math.round(n * 10) / 10])));
}

/** Prefixes with their depths, children below their parents. */
function treeOf(prefixes) {
  const children = new Map();
  for (const p of prefixes) children.set(p.parent, [...(children.get(p.parent) || []), p]);
  const ordered = [];
  const walk = (parent, level) => {
    for (const row of (children.get(parent) || []).sort((a, b) => b.hits - a.hits)) {
      ordered.push({...row, level});
      walk(row.id, level + 1);
    }
  };
  walk(null, 0);
  return ordered;
}

function drawPrefixes() {
  fill("prefixes", last.prefixes, (all) => {
    const hottest = Math.max(...all.map((p) => p.hits), 1);
    return all.length ? table(["prefix", "tokens", "blocks", "hits", "", "users"],
      treeOf(all).slice(0, 100).map((r) => [`${"\u00a0\u00a0".repeat(Math.min(r.level, 10))}${r.level ? "└ " : ""}${r.tenant ?? "?"} #${r.id}`,
                                           r.tokens, r.blocks, r.hits, bar(r.hits / hottest), r.users])) : "nothing is cached yet";
  });
}

function draw() {
  scheduled = false;
  if (!last || $("cache").hidden) return;
  drawMap(last, $("by-tenant").checked);
  drawSteps(steps);
  drawTip();
  drawPool();
  drawRequests();
  drawPrefixes();
  drawTables();
}

/** The steps after some more have come. A new stream begins with steps that were seen; a new server counts from 1. */
export function joined(steps, more) {
  const seen = steps.at(-1)?.id ?? 0, newest = more.at(-1)?.id ?? seen;
  return (newest < seen ? more : steps.concat(more.filter((s) => s.id > seen))).slice(-LONGEST);
}

function take(event) {
  last = event;
  last_ms = performance.now();
  steps = joined(steps, event.steps);
  $("cache").classList.remove("empty");
  setState(`${event.model}, live`, true);
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(draw);
  }
}

/** What the line above says. What is no longer live must not look so. */
function setState(text, live, needsKey = false) {
  setText($("state-text"), text);
  $("state-key").hidden = !needsKey;
  $("cache").classList.toggle("stale", !live);
  tick();
}

function tick() {
  const silent_ms = performance.now() - last_ms, stale = $("cache").classList.contains("stale");
  if (last && !stale && silent_ms > SILENT_MS) return setState("nothing comes from the server", false);
  setText($("seen"), last && stale ? `last seen ${Math.round(silent_ms / 1000)} s ago` : "");
}

let stream = null;  // AbortController of the open stream

/** Watches until stopped; comes back after a while when the server has gone. */
async function watch(askForKey) {
  const mine = (stream = new AbortController());
  const ticks = setInterval(tick, 1000);
  let wait = 500;
  setState("connecting …", false);
  while (!mine.signal.aborted) {
    let why = "no connection";
    try {
      for await (const event of events("/v1/kv/stream?interval_ms=500", {signal: mine.signal})) {
        wait = 500;
        take(event);
      }
    } catch (error) {
      if (mine.signal.aborted) break;
      if (error.status === 401 && (await askForKey(error.message))) continue;
      if (error.status === 401 || error.status === 403) {
        setState(error.status === 403 ? "The dashboard needs the key of an operator." : "This server asks for an API key.", false, true);
        mine.abort();
        break;
      }
      if (error instanceof ApiError && error.status) why = error.message;
    }
    if (!mine.signal.aborted) setState(`${why}, trying again`, false);
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(10_000, wait * 2);
  }
  clearInterval(ticks);
}

/** Tells what is under the pointer, or was touched. */
function startPointing() {
  const point = (event) => {
    pointed = event && {target: event.target, offsetX: event.offsetX, offsetY: event.offsetY, clientX: event.clientX, clientY: event.clientY};
    drawTip();
  };
  for (const canvas of [$("map"), $("steps")]) {
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(null));
  }
  addEventListener("pointerdown", ({target}) => target.matches("canvas") || point(null));
  addEventListener("scroll", () => point(null), true);
}

export function startDashboard(askForKey) {
  // Nobody looks at a hidden page: the engine is left alone.
  const update = () => {
    const wanted = !document.hidden && !$("cache").hidden;
    if (wanted && (!stream || stream.signal.aborted)) watch(askForKey);
    if (!wanted) stream?.abort();
  };
  document.addEventListener("visibilitychange", update);
  $("state-key").addEventListener("click", async () => {
    if (await askForKey("The key of an operator.")) update();
  });
  $("by-tenant").addEventListener("change", draw);
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  startPointing();
  return update;
}
