// Markdown as DOM nodes: headings, lists, tables, code, quotes, rules, emphasis, links. What is not
// understood stays text.

import {make} from "./dom.js";

const SAFE = /^(https?:\/\/|mailto:)/i;
const INLINE =
  /(`+)([\s\S]*?[^`])\1(?!`)|\*\*([^*\s](?:[^*]|\*(?!\*))*?)\*\*|\*([^*\s][^*]*?)\*|(?<!\w)_([^_\s][^_]*?)_(?!\w)|~~([^~]+)~~|!?\[([^\]]*)\]\(\s*<?([^\s)>]*)>?(?:\s+"[^"]*")?\s*\)|(https?:\/\/[^\s<>()]+[^\s<>().,;:!?'"])/;

function link(text, address) {
  if (!SAFE.test(address)) return text;
  return make("a", {href: address, rel: "noopener noreferrer", target: "_blank"}, text);
}

/** The nodes of a line's text. */
export function inline(text) {
  const out = [];
  while (text) {
    const m = INLINE.exec(text);
    if (!m) break;
    if (m.index) out.push(text.slice(0, m.index));
    text = text.slice(m.index + m[0].length);
    if (m[1]) out.push(make("code", {}, m[2].trim()));
    else if (m[3]) out.push(make("strong", {}, ...inline(m[3])));
    else if (m[4] || m[5]) out.push(make("em", {}, ...inline(m[4] || m[5])));
    else if (m[6]) out.push(make("del", {}, ...inline(m[6])));
    else if (m[9]) out.push(link(m[9], m[9]));
    else out.push(link(m[7] || m[8], m[8]));  // an image is a link too: nothing is fetched
  }
  if (text) out.push(text);
  return out;
}

function codeBlock(lines, language) {
  const code = make("code", language ? {"data-language": language} : {}, lines.join("\n"));
  const copy = make("button", {type: "button", onclick: () => navigator.clipboard?.writeText(code.textContent)}, "Copy");
  return make("pre", {}, code, copy);
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, "|"));
const ITEM = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const startsBlock = (line) =>
  /^(#{1,6}\s|>|```|~~~)/.test(line.trimStart()) || ITEM.test(line) || RULE.test(line) || !line.trim();

function list(lines) {
  const first = ITEM.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const node = make(ordered ? "ol" : "ul", ordered && first[2] !== "1." ? {start: parseInt(first[2], 10)} : {});
  let item = [];
  const flush = () => {
    if (item.length) node.append(make("li", {}, ...blocks(item)));
    item = [];
  };
  for (const line of lines) {
    const m = ITEM.exec(line);
    if (m && m[1].length <= first[1].length) {
      flush();
      item.push(m[3]);
    } else {
      item.push(line.slice(Math.min(line.length - line.trimStart().length, first[1].length + first[2].length + 1)));
    }
  }
  flush();
  return node;
}

/** The nodes of some lines. */
function blocks(lines) {
  const out = [];
  for (let i = 0; i < lines.length;) {
    const line = lines[i], bare = line.trimStart();
    const fence = /^(```+|~~~+)\s*([\w+#.-]*)/.exec(bare);
    const take = (more) => {
      const from = i++;
      while (i < lines.length && more(lines[i])) ++i;
      return lines.slice(from, i);
    };
    if (!bare) {
      ++i;
    } else if (fence) {
      const inside = [];
      for (++i; i < lines.length && !lines[i].trim().startsWith(fence[1]); ++i) inside.push(lines[i]);
      ++i;
      out.push(codeBlock(inside, fence[2]));
    } else if (/^#{1,6}\s/.test(bare)) {
      const m = /^(#{1,6})\s+(.*?)\s*#*$/.exec(bare);
      out.push(make("h" + Math.min(6, m[1].length + 2), {}, ...inline(m[2])));
      ++i;
    } else if (RULE.test(line)) {
      out.push(make("hr"));
      ++i;
    } else if (bare.startsWith(">")) {
      out.push(make("blockquote", {}, ...blocks(take((l) => l.trimStart().startsWith(">")).map((l) => l.trimStart().replace(/^> ?/, "")))));
    } else if (ITEM.test(line)) {
      out.push(list(take((l) => ITEM.test(l) || /^\s+\S/.test(l))));
    } else if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[i + 1] || "") && lines[i + 1].includes("-")) {
      const rows = take((l) => l.includes("|") && l.trim());
      const row = (tag) => (l) => make("tr", {}, ...cells(l).map((c) => make(tag, {}, ...inline(c))));
      out.push(make("table", {}, make("thead", {}, row("th")(rows[0])), make("tbody", {}, ...rows.slice(2).map(row("td")))));
    } else {
      const text = take((l) => !startsBlock(l));
      const nodes = [];
      text.forEach((l, k) => {
        if (k) nodes.push(/ {2}$/.test(text[k - 1]) ? make("br") : "\n");
        nodes.push(...inline(l.trim()));
      });
      out.push(make("p", {}, ...nodes));
    }
  }
  return out;
}

/** Shows a text that grows: blocks that can no longer change are made once. */
export class Markdown {
  constructor(node) {
    this.node = node;
    this.text = "";
    this.done = 0;  // of text, up to where its nodes are final
    this.open = [];  // nodes that may still change
  }

  set(text) {
    if (!text.startsWith(this.text)) {
      this.node.replaceChildren();
      this.done = 0;
      this.open = [];
    }
    this.text = text;
    for (const node of this.open) node.remove();
    const cut = this.lastCut();
    this.node.append(...blocks(text.slice(this.done, cut).split("\n")));
    this.done = cut;
    this.open = blocks(text.slice(cut).split("\n"));
    this.node.append(...this.open);
  }

  /** After the last empty line that is in no code and before no list that might go on. */
  lastCut() {
    let cut = this.done, at = this.done, fence = null, previous = "";
    const lines = this.text.slice(this.done).split("\n");
    lines.pop();  // it may go on
    for (const line of lines) {
      const m = /^\s*(```+|~~~+)/.exec(line);
      if (fence) {
        if (m && m[1].startsWith(fence)) fence = null;
      } else if (m) {
        fence = m[1];
      } else if (!line.trim() && previous.trim() && !ITEM.test(previous) && !/^\s/.test(previous)) {
        cut = at + line.length + 1;
      }
      previous = line;
      at += line.length + 1;
    }
    return Math.min(cut, this.text.length);
  }
}
