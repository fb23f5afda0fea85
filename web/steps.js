// The time of the last steps as a chart.

import {color, fit, swatch} from "./canvas.js";
import {$, setText} from "./dom.js";

export const LONGEST = 2000;  // steps that are kept
const STEP_PX = 3, HEIGHT_PX = 130, LABEL_PX = 56;

let shown = [];

/** The ms that the chart reaches to: a few slow steps must not flatten all others. */
export function topOf(steps) {
  const sorted = steps.map((s) => s.ms).sort((a, b) => a - b);
  return Math.max(sorted[Math.floor(0.98 * (sorted.length - 1))] ?? 0, ...steps.map((s) => s.limit_ms)) || 1;
}

/** The largest of 1, 2, 5, 10, 20 … that is not larger. */
export function roundBelow(ms) {
  const power = 10 ** Math.floor(Math.log10(ms));
  return [5, 2, 1].map((n) => n * power).find((n) => n <= ms) ?? power;
}

const legend = [["var(--one)", "decode rows"], ["var(--shared)", "prompt rows"], ["var(--text)", "limit, and what is cut off above"]];

function drawGrid(context, width, top, y) {
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "right";
  for (const ms of [roundBelow(top / 2), 2 * roundBelow(top / 2)]) {
    context.fillStyle = color("line");
    context.fillRect(0, y(ms), width, 1);
    context.fillStyle = color("dim");
    context.fillText(`${Number(ms.toPrecision(1))} ms`, width, y(ms) - 3);
  }
}

function drawStep(context, s, x, top, y) {
  const rows = s.decode + s.prefill || 1, bottom = y(0), high = y(Math.min(s.ms, top)), middle = bottom - ((bottom - high) * s.decode) / rows;
  context.fillStyle = color("one");
  context.fillRect(x, middle, STEP_PX - 1, bottom - middle);
  context.fillStyle = color("shared");
  context.fillRect(x, high, STEP_PX - 1, middle - high);
  context.fillStyle = color("text");
  if (s.ms > top) context.fillRect(x, 0, STEP_PX - 1, 4);
  if (s.limit_ms) context.fillRect(x, y(s.limit_ms), STEP_PX, 1);
}

export function drawSteps(steps) {
  if (!$("steps-legend").firstChild) $("steps-legend").append(...legend.map(([background, text]) => swatch(background, text)));
  const [context, width] = fit($("steps"), HEIGHT_PX);
  shown = steps.slice(-Math.max(1, Math.floor((width - LABEL_PX) / STEP_PX)));
  if (!shown.length) return;
  const top = topOf(shown), y = (ms) => HEIGHT_PX - 1 - (ms / top) * (HEIGHT_PX - 16);
  drawGrid(context, width, top, y);
  shown.forEach((s, i) => drawStep(context, s, i * STEP_PX, top, y));
  setText($("steps-text"), `last step: ${textOf(shown.at(-1)).replaceAll("\n", ", ")}; the longest shown took ${
    Math.max(...shown.map((s) => s.ms)).toFixed(1)} ms`);
}

const textOf = (s) => [`${s.ms.toFixed(1)} ms`, `${s.decode} decode rows`, `${s.prefill} prompt rows`,
                       ...(s.limit_ms ? [`limit ${s.limit_ms.toFixed(0)} ms`] : [])].join("\n");

/** What is known of the step at a place; "" if there is none. */
export function stepAt({offsetX}) {
  const s = shown[Math.floor(offsetX / STEP_PX)];
  return s ? textOf(s) : "";
}
