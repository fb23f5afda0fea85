// Nodes are made here and nowhere from text: nothing that a model says can become markup.

export const $ = (id) => document.getElementById(id);

/** make("p", {class: "dim", onclick: f}, "text", node ...) */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c != null).map((c) => (typeof c === "number" ? String(c) : c)));
  return node;
}

/** Sets a text that changed: screen readers tell what is set, changed or not. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows a modal dialog. True if its first button closed it. */
export function ask(dialog) {
  dialog.returnValue = "";  // in some browsers an earlier answer stays when Escape closes it
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "ok"), {once: true}));
}

export function confirmed(text, verb) {
  setText($("sure-text"), text);
  setText($("sure-ok"), verb);
  return ask($("sure"));
}

/** True if the text is in the clipboard. Pages over plain http have no navigator.clipboard. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const before = document.activeElement, area = make("textarea", {class: "aside"});
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}

export function table(heads, rows) {
  const isNumber = (value) => typeof value === "number" || (typeof value === "string" && /^[\d.,]+( \S+)?$/.test(value));
  const cell = (value) => make("td", isNumber(value) ? {class: "n"} : {}, typeof value === "number" ? value.toLocaleString("en") : value);
  const head = (text, i) => make("th", rows.length && isNumber(rows[0][i]) ? {class: "n"} : {}, text);
  return make("table", {}, make("thead", {}, make("tr", {}, ...heads.map(head))),
              make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell)))));
}

export function bar(part) {
  const inside = make("i");
  inside.style.width = `${100 * Math.max(0, Math.min(1, part || 0))}%`;
  return make("div", {class: "bar"}, inside);
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024;
    ++i;
  }
  return `${n.toFixed(i && n < 100 ? 1 : 0)} ${units[i]}`;
}
