// The live view of the KV cache: one event stream, drawn when something new came.

import {events} from "./api.js";
import {$, bar, bytes, make, table} from "./dom.js";

const STATES = [["w", "written", "being computed"], ["r", "one", "one sequence"], ["s", "shared", "several sequences"],
                ["c", "cached", "cached, idle"], [".", "free", "free"]];
const KEPT_STEPS = 2000;
const MISSES = {none: "all was cached", never_seen: "never seen", diverged: "another token", evicted: "given up", window: "out of window"};

let last = null;  // the last event
let steps = [];   // of the last minutes: {id, ms, decode, prefill, limit_ms}
let scheduled = false;
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const hue = (i) => `hsl(${(i * 137.5 + 170) % 360} 45% 52%)`;

function fit(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width];
}

function owners() {
  const out = [];
  for (const [tenant, count] of last.map.owners) for (let i = 0; i < count; ++i) out.push(tenant);
  return out;
}

let grid = {columns: 1, size: 8};
function drawMap() {
  const {cells} = last.map;
  const canvas = $("map"), width = canvas.clientWidth;
  const size = cells.length > 6000 ? 5 : cells.length > 1500 ? 8 : 12;
  grid = {columns: Math.max(1, Math.floor(width / size)), size};
  const [context] = fit(canvas, Math.ceil(cells.length / grid.columns) * size);
  const byTenant = $("by-tenant").checked, owner = byTenant ? owners() : null;
  const colors = Object.fromEntries(STATES.map(([state, name]) => [state, color(name)]));
  for (let i = 0; i < cells.length; ++i) {
    context.globalAlpha = byTenant && cells[i] === "c" ? 0.5 : 1;
    context.fillStyle = byTenant && cells[i] !== "." && owner[i] >= 0 ? hue(owner[i]) : colors[cells[i]];
    context.fillRect((i % grid.columns) * size, Math.floor(i / grid.columns) * size, size - 1, size - 1);
  }
  context.globalAlpha = 1;
  const swatch = (background, text) => {
    const box = make("span", {class: "swatch"});
    box.style.background = background;
    return [box, text];
  };
  const entries = byTenant ? last.tenants.map((t, i) => swatch(hue(i), t.name || "everybody"))
                           : STATES.map(([state, name, text]) => swatch(colors[state], text));
  $("legend").replaceChildren(...entries.flat());
}

function hover(event) {
  if (!last) return;
  const i = Math.floor(event.offsetY / grid.size) * grid.columns + Math.floor(event.offsetX / grid.size);
  const cell = last.map.cells[i];
  if (!cell) return;
  const state = STATES.find(([s]) => s === cell)[2], tenant = last.tenants[owners()[i]]?.name;
  const each = last.map.blocks_per_cell;
  const which = each === 1 ? `block ${i}` : `blocks ${i * each} to ${Math.min((i + 1) * each, last.pool.blocks) - 1}`;
  $("hover").textContent = `${which}: ${state}${tenant && cell !== "." ? `, ${tenant}` : ""}`;
}

function drawSteps() {
  const [context, width] = fit($("steps"), 120);
  const shown = steps.slice(-Math.floor(width / 3));
  if (!shown.length) return;
  const most = Math.max(...shown.map((s) => Math.max(s.ms, s.limit_ms))) || 1;
  const y = (ms) => 118 - (ms / most) * 112;
  shown.forEach((s, i) => {
    const rows = s.decode + s.prefill || 1, middle = y((s.ms * s.decode) / rows);
    context.fillStyle = color("one");
    context.fillRect(i * 3, middle, 2, 118 - middle);
    context.fillStyle = color("shared");
    context.fillRect(i * 3, y(s.ms), 2, middle - y(s.ms));
    if (s.limit_ms) {
      context.fillStyle = color("written");
      context.fillRect(i * 3, y(s.limit_ms), 3, 1);
    }
  });
  const now = shown.at(-1);
  $("steps-text").textContent =
    `last step ${now.ms.toFixed(1)} ms: ${now.decode} decode rows (green), ${now.prefill} prompt rows (amber)` +
    `${now.limit_ms ? `, limit ${now.limit_ms.toFixed(0)} ms (line)` : ""}; the highest shown ${most.toFixed(1)} ms; ` +
    `${now.running} running, ${now.waiting} waiting`;
}

function drawTables() {
  const {pool} = last;
  const figure = (value, text) => make("span", {}, make("b", {}, value), text);
  $("pool").replaceChildren(
    figure(`${(100 * pool.usage).toFixed(1)}%`, "in use"), figure(pool.blocks.toLocaleString("en"), `blocks of ${pool.block_tokens} tokens, ${bytes(pool.block_bytes)}`),
    figure(pool.referenced.toLocaleString("en"), "held"), figure(pool.cached_idle.toLocaleString("en"), "cached"),
    figure(pool.free.toLocaleString("en"), "free"), figure(pool.evicted_blocks.toLocaleString("en"), "given up so far"));
  const state = (s) => s.state !== "running" ? s.state.replaceAll("_", " ") : s.computed_tokens < s.prompt_tokens ? "prefill" : "decode";
  $("requests").replaceChildren(last.sequences.length ? table(
    ["id", "tenant", "state", "prefill", "cached", "output", "blocks", "age"],
    last.sequences.map((s) => [String(s.id), s.tenant || "–", state(s), bar(Math.min(1, s.computed_tokens / s.prompt_tokens)),
                               s.cached_tokens, s.output_tokens, s.blocks, `${s.age_s.toFixed(1)} s`])) : "nobody is served now");
  if (last.sequences_total > last.sequences.length)
    $("requests").append(make("p", {class: "dim"}, `and ${last.sequences_total - last.sequences.length} more`));
  drawPrefixes();
  const ms = (v) => (v ? `${v.toFixed(1)} ms` : "–");
  const {ttft_ms, itl_ms} = last.latency;
  $("latency").replaceChildren(table(["last minutes", "p50", "p90", "p99"], [
    ["first token", ms(ttft_ms.p50), ms(ttft_ms.p90), ms(ttft_ms.p99)],
    ["between tokens", ms(itl_ms.p50), ms(itl_ms.p90), ms(itl_ms.p99)]]));
  const sum = Object.values(last.misses).reduce((a, b) => a + b, 0) || 1;
  $("misses").replaceChildren(table(["reason", "prompts", ""],
    Object.entries(last.misses).map(([name, n]) => [MISSES[name] || name, n, bar(n / sum)])));
  $("tenants").replaceChildren(table(["tenant", "running", "waiting", "blocks", "quota", "weight", "served"],
    last.tenants.map((t) => [t.name || "everybody", t.running, t.waiting, t.blocks, t.quota_blocks || "–", t.weight, Math.round(t.served_tokens)])));
  const most = Math.max(...last.memory.map((m) => m.bytes), 1);
  $("memory").replaceChildren(table(["owner", "", ""], last.memory.map((m) => [m.owner, bytes(m.bytes), bar(m.bytes / most)])),
                              make("p", {class: "dim"}, `resident: ${bytes(last.resident_bytes)}`));
  $("counters").replaceChildren(table(["", ""], Object.entries(last.counters).map(([name, n]) => [name.replaceAll("_", " "), Math.round(n * 10) / 10])));
}

function drawPrefixes() {
  const depths = new Map();
  const rows = last.prefixes.map((p) => {
    const level = p.parent === null ? 0 : (depths.get(p.parent) ?? 0) + 1;
    depths.set(p.id, level);
    return {...p, level};
  });
  // Children below their parents.
  const children = Map.groupBy ? Map.groupBy(rows, (r) => r.parent) : rows.reduce((m, r) => m.set(r.parent, [...(m.get(r.parent) || []), r]), new Map());
  const ordered = [];
  const walk = (parent) => {
    for (const row of (children.get(parent) || []).sort((a, b) => b.hits - a.hits)) {
      ordered.push(row);
      walk(row.id);
    }
  };
  walk(null);
  const hottest = Math.max(...rows.map((r) => r.hits), 1);
  $("prefixes").replaceChildren(ordered.length ? table(["prefix", "tokens", "blocks", "hits", "", "users"],
    ordered.slice(0, 100).map((r) => [`${"  ".repeat(Math.min(r.level, 10))}${r.level ? "└ " : ""}${r.tenant ?? "?"} #${r.id}`,
                                      r.tokens, r.blocks, r.hits, bar(r.hits / hottest), r.users])) : "nothing is cached yet");
}

function draw() {
  scheduled = false;
  if (!last || $("cache").hidden) return;
  drawMap();
  drawSteps();
  drawTables();
}

/** The steps after some more have come. A new stream begins with steps that were seen; a new server counts from 1. */
export function joined(steps, more) {
  const seen = steps.at(-1)?.id ?? 0, newest = more.at(-1)?.id ?? seen;
  return (newest < seen ? more : steps.concat(more.filter((s) => s.id > seen))).slice(-KEPT_STEPS);
}

function take(event) {
  last = event;
  steps = joined(steps, event.steps);
  if (!scheduled) {
    scheduled = true;
    requestAnimationFrame(draw);
  }
}

let stream = null;  // AbortController of the open stream

/** Watches until stopped; comes back after a while when the server has gone. */
async function watch(askForKey) {
  const mine = (stream = new AbortController());
  let wait = 500;
  while (!mine.signal.aborted) {
    try {
      for await (const event of events("/v1/kv/stream?interval_ms=500", {signal: mine.signal})) {
        wait = 500;
        $("state").textContent = `${event.model}, live`;
        take(event);
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error.status === 401 && (await askForKey(error.message))) continue;
      $("state").textContent = error.status === 403 ? "The dashboard needs the key of an operator." : `no connection: ${error.message}`;
      if (error.status === 403 || error.status === 401) return;
    }
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(10_000, wait * 2);
  }
}

export function startDashboard(askForKey) {
  // Nobody looks at a hidden page: the engine is left alone.
  const update = () => {
    const wanted = !document.hidden && !$("cache").hidden;
    if (wanted && (!stream || stream.signal.aborted)) watch(askForKey);
    if (!wanted) stream?.abort();
  };
  document.addEventListener("visibilitychange", update);
  $("map").addEventListener("mousemove", hover);
  $("by-tenant").addEventListener("change", draw);
  addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  return update;
}
