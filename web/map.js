// The blocks of the pool as a map of squares.

import {color, fit, swatch} from "./canvas.js";
import {$, bytes, setText} from "./dom.js";

const STATES = [["w", "written", "being computed"], ["r", "one", "one sequence"], ["s", "shared", "several sequences"],
                ["c", "cached", "cached, idle"], [".", "free", "free"]];
const BY_USE = ".crws";
const LEAST_PX = 5, MOST_PX = 28;  // of a square, with the gap
const hue = (i) => `hsl(${(i * 137.5 + 170) % 360} 45% 52%)`;

/** How cells lie in an area: as large as fits, and so many of them in one square that each square can be seen. */
export function layoutOf(cells, width, height) {
  const room = Math.max(1, Math.floor(width / LEAST_PX) * Math.floor(height / LEAST_PX));
  const each = Math.max(1, Math.ceil(cells / room)), squares = Math.ceil(cells / each);
  let size = MOST_PX;
  while (size > LEAST_PX && Math.ceil(squares / Math.floor(width / size)) * size > height) --size;
  return {each, size, columns: Math.max(1, Math.floor(width / size))};
}

function ownersOf(map) {
  const out = [];
  for (const [tenant, count] of map.owners) for (let i = 0; i < count; ++i) out.push(tenant);
  return out;
}

/** Of the cells of each square the busiest. */
function busiestOf(cells, each) {
  const out = [];
  for (let i = 0; i < cells.length; i += each) {
    let best = i;
    for (let k = i; k < Math.min(i + each, cells.length); ++k) if (BY_USE.indexOf(cells[k]) > BY_USE.indexOf(cells[best])) best = k;
    out.push(best);
  }
  return out;
}

const sizeOf = (blocks, pool) => `${(blocks * pool.block_tokens).toLocaleString("en")} tokens, ${bytes(blocks * pool.block_bytes)}`;

let shown = {each: 1, size: LEAST_PX, columns: 1, cells: []};  // cells: of each square, the one that shows

function drawLegend({pool, map, tenants}, byTenant) {
  const entries = byTenant ? tenants.map((t, i) => [hue(i), t.name || "everybody"]) : STATES.map(([, name, text]) => [`var(--${name})`, text]);
  const key = JSON.stringify(entries);
  if ($("legend").dataset.shows !== key) $("legend").replaceChildren(...entries.map(([background, text]) => swatch(background, text)));
  $("legend").dataset.shows = key;
  const blocks = shown.each * map.blocks_per_cell;
  setText($("square"), `1 square = ${blocks === 1 ? "1 block" : `${blocks} blocks`} = ${sizeOf(blocks, pool)}` +
    (blocks === 1 ? "" : "; the busiest of them shows"));
}

export function drawMap(event, byTenant) {
  const {cells} = event.map, canvas = $("map");
  const layout = layoutOf(cells.length, canvas.clientWidth, Math.max(160, Math.min(320, 0.45 * innerHeight)));
  shown = {...layout, cells: busiestOf(cells, layout.each)};
  const {size, columns} = shown;
  const [context] = fit(canvas, Math.ceil(shown.cells.length / columns) * size);
  const owners = byTenant ? ownersOf(event.map) : null;
  const colors = Object.fromEntries(STATES.map(([state, name]) => [state, color(name)]));
  shown.cells.forEach((cell, i) => {
    const state = cells[cell];
    context.globalAlpha = byTenant && state === "c" ? 0.5 : 1;
    context.fillStyle = byTenant && state !== "." && owners[cell] >= 0 ? hue(owners[cell]) : colors[state];
    context.fillRect((i % columns) * size, Math.floor(i / columns) * size, size - 1, size - 1);
  });
  context.globalAlpha = 1;
  drawLegend(event, byTenant);
}

/** What is known of the square at a place; "" if there is none. */
export function squareAt({map, pool, tenants}, {offsetX, offsetY}) {
  const column = Math.floor(offsetX / shown.size), i = Math.floor(offsetY / shown.size) * shown.columns + column;
  const cell = shown.cells[i];
  if (cell === undefined || column >= shown.columns) return "";
  const each = shown.each * map.blocks_per_cell, from = i * each, to = Math.min(from + each, pool.blocks) - 1, count = to - from + 1;
  const state = STATES.find(([s]) => s === map.cells[cell])[2], owner = tenants[ownersOf(map)[cell]];
  return [count === 1 ? `block ${from}` : `blocks ${from} to ${to}`,
          state + (owner && map.cells[cell] !== "." ? `, ${owner.name || "everybody"}` : ""),
          sizeOf(count, pool)].join("\n");
}
