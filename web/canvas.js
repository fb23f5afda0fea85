// What the drawings of the dashboard have in common.

import {make} from "./dom.js";

export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

/** A canvas as wide as its place, cleared, in CSS pixels. */
export function fit(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width];
}

/** One entry of a legend. */
export function swatch(background, text) {
  const box = make("i");
  box.style.background = background;
  return make("span", {class: "swatch"}, box, text);
}
