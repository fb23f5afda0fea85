// Markdown as DOM nodes: headings, lists, tables, code, quotes, rules, emphasis, links. What is not
// understood stays text. A text is read into a tree of strings and {tag, children, attributes}, in
// time that is linear in its length; of the nodes on the page only those that differ are touched.

import {copyText, make} from "./dom.js";

const MAX_DEPTH = 20;  // of quotes and lists in each other; what is deeper stays text
const SAFE = /^(https?:\/\/|mailto:)/i;
// No alternative can look far beyond where the next attempt begins: that would be quadratic.
const INLINE =
  /\\([!-/:-@[-`{-~])|(`+)|(\*+|_+|~+)|!?\[([^[\]]*)\]\( {0,3}<?((?:[^\s()<>]|\([^\s()<>]*\))*)>? {0,3}(?:"[^"]*" {0,3})?\)|(https?:\/\/[^\s<>()*`]+[^\s<>()*`.,;:!?'"_~])|<[bB][rR] ?\/?>| {2}\n/g;
const MARKS = {"*": ["em", "strong"], "_": ["em", "strong"], "~": [null, "del"]};  // of one character, and of two
const MAX_OPEN = 32;  // marks that wait for their end

const element = (tag, children = [], attributes = {}) => ({tag, children, attributes});

function link(children, address) {
  return SAFE.test(address) ? [element("a", children, {href: address, rel: "noopener noreferrer", target: "_blank"})] : children;
}

/** By the place of each run of backticks, that of the next one as long, which closes it. */
function closingRuns(text) {
  const closing = new Map(), later = new Map();
  for (const {0: run, index} of [...text.matchAll(/`+/g)].reverse()) {
    closing.set(index, later.get(run.length));
    later.set(run.length, index);
  }
  return closing;
}

const isSpace = (c) => !c || /\s/.test(c), isWord = (c) => /[\p{L}\p{N}_]/u.test(c ?? ""), isSign = (c) => !isSpace(c) && !isWord(c);

/** What marks between two characters may do: open, close what is as long, or close anything (ends). */
function roleOf(mark, before, after) {
  const within = (c) => mark === "_" && isWord(c);  // snake_case
  const opens = !isSpace(after) && !within(before), closes = !isSpace(before) && !within(after);
  return {opens, closes, ends: closes && (!opens || (isSign(after) && !isSign(before)))};
}

/** Marks that are open, and what came since: CommonMark's stack of delimiters, with a limit. */
class Emphasis {
  constructor() {
    this.out = [];
    this.open = [];  // {mark, length, at: its place in out}
  }

  /** The open mark that some of these marks close. One that is longer may have been meant for more that comes. */
  partner(mark, length, ends) {
    return this.open.findLastIndex((o) => o.mark === mark && (o.length === length || (ends && (o.length < length || o.length === 3))));
  }

  close(mark, length, ends) {
    for (let i; length && (i = this.partner(mark, length, ends)) >= 0;) {
      const opener = this.open[i], used = Math.min(2, length, opener.length);
      const inside = this.out.splice(opener.at + 1);
      opener.length -= used;
      length -= used;
      this.out[opener.at] = mark.repeat(opener.length);
      this.out.push(element(MARKS[mark][used - 1], merged(inside)));
      this.open.length = opener.length ? i + 1 : i;
    }
    return length;
  }

  add(run, before, after) {
    const mark = run[0], {opens, closes, ends} = roleOf(mark, before, after);
    if (run.length > 3 || (mark === "~" && run.length !== 2)) return this.out.push(run);
    const left = closes ? this.close(mark, run.length, ends) : run.length;
    if (left && opens) {
      if (this.open.length === MAX_OPEN) this.open.shift();
      this.open.push({mark, length: left, at: this.out.length});
    }
    this.out.push(mark.repeat(left));
  }
}

/** Children with neighbouring strings as one. */
function merged(children) {
  const out = [];
  for (const child of children) {
    if (typeof child === "string" && typeof out.at(-1) === "string") out.push(out.pop() + child);
    else if (child !== "") out.push(child);
  }
  return out;
}

/** What a text consists of. */
function inline(text, inLink = false) {
  const found = new Emphasis(), {out} = found, closing = closingRuns(text);
  let done = 0;
  for (let from = 0;;) {
    INLINE.lastIndex = from;
    const m = INLINE.exec(text);
    if (!m) break;
    const [whole, escaped, ticks, marks, label, address, url] = m;
    from = m.index + whole.length;
    const end = ticks && closing.get(m.index);
    if (ticks && end === undefined) continue;
    if (m.index > done) out.push(text.slice(done, m.index));
    if (escaped) {
      out.push(escaped);
    } else if (ticks) {
      out.push(element("code", [text.slice(from, end).trim()]));
      from = end + ticks.length;
    } else if (marks) {
      found.add(marks, text[m.index - 1], text[from]);
    } else if (url) {
      out.push(...(inLink ? [url] : link([url], url)));
    } else if (label !== undefined) {
      out.push(...link(label ? inline(label, true) : [address], address));  // an image is a link too: nothing is fetched
    } else {
      out.push(element("br"));
    }
    done = from;
  }
  if (done < text.length) out.push(text.slice(done));
  return merged(out);
}

const indentOf = (line) => line.length - line.trimStart().length;
const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((c) => c.trim().replace(/\\\|/g, "|"));
const HEADING = /^#{1,6}\s/;
const ITEM = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/s;
const MARKERS = /^\s*(?:(?:[-*+]|\d+[.)])\s+)*/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;

/** The fence that a line opens, with its language; null if none. One that is closed in its line is no fence. */
function fenceOf(line) {
  const m = /^(`{3,}|~{3,})([^`]*)$/.exec(line.trimStart());
  return m && {mark: m[1], language: /^[\w+#.-]*/.exec(m[2].trim())[0]};
}

const closes = (line, fence) => /^(`+|~+)$/.test(line.trim()) && line.trim().startsWith(fence.mark);

const startsTable = (lines, i) =>
  lines[i].includes("|") && !!lines[i + 1]?.includes("|") && cells(lines[i + 1]).every((c) => /^:?-+:?$/.test(c));

function endsParagraph(lines, i) {
  const line = lines[i], bare = line.trimStart();
  return !bare || HEADING.test(bare) || bare.startsWith(">") || ITEM.test(line) || RULE.test(line) || !!fenceOf(line) ||
    startsTable(lines, i);
}

async function copy({target}) {
  target.textContent = (await copyText(target.previousSibling.textContent)) ? "Copied" : "Not copied";
  setTimeout(() => (target.textContent = "Copy"), 1500);
}

/** The button is outside of what scrolls. */
function codeBlock(lines, language) {
  return element("div", [element("pre", [element("code", [lines.join("\n")])]), element("button", ["Copy"], {type: "button", onclick: copy})],
                 language ? {class: "code", "data-language": language} : {class: "code"});
}

function heading(bare) {
  const level = /^#+/.exec(bare)[0].length;
  let text = bare.slice(level).trim(), end = text.length;
  while (text[end - 1] === "#") --end;
  if (!end || /\s/.test(text[end - 1])) text = text.slice(0, end).trim();
  return element("h" + Math.min(6, level + 2), inline(text));
}

function paragraph(lines) {
  return element("p", inline(lines.map((line, i) => line.trim() + (line.endsWith("  ") && i + 1 < lines.length ? "  " : "")).join("\n")));
}

function tableOf(lines) {
  const row = (line, tag) => element("tr", cells(line).map((c) => element(tag, inline(c))));
  return element("table", [element("thead", [row(lines[0], "th")]),
                           element("tbody", lines.slice(2).map((line) => row(line, "td")))]);
}

/** The list that begins at a line, and the line after it. */
function list(lines, from, depth) {
  const [, {length: indent}, marker] = ITEM.exec(lines[from]);
  const ordered = /\d/.test(marker), items = [];
  let fence = null;  // that is open: nothing in code begins an item or ends the list
  let i = from;
  for (; i < lines.length; ++i) {
    const line = lines[i], m = fence || RULE.test(line) ? null : ITEM.exec(line);
    let text;
    if (m && m[1].length <= indent) {
      if (/\d/.test(m[2]) !== ordered) break;
      items.push([]);
      text = m[3];
    } else if (fence || /^\s/.test(line) || !line) {
      text = line.slice(Math.min(indentOf(line), indent + marker.length + 1));
    } else {
      break;
    }
    items.at(-1).push(text);
    if (!fence) fence = fenceOf(text.replace(MARKERS, ""));
    else if (closes(text, fence)) fence = null;
  }
  return [element(ordered ? "ol" : "ul", items.map((item) => element("li", blocks(item, depth + 1))),
                  ordered && parseInt(marker, 10) !== 1 ? {start: parseInt(marker, 10)} : {}), i];
}

/** The blocks of some lines; `began` gets the line at which each begins. */
function blocks(lines, depth = 0, began = []) {
  if (depth > MAX_DEPTH) return [paragraph(lines)];
  const out = [];
  for (let i = 0; i < lines.length;) {
    const line = lines[i], bare = line.trimStart();
    const take = (more) => {
      const from = i++;
      while (i < lines.length && more(lines[i], i)) ++i;
      return lines.slice(from, i);
    };
    if (!bare) {
      ++i;
      continue;
    }
    began.push(i);
    const fence = fenceOf(line);
    if (fence) {
      const [, ...inside] = take((l) => !closes(l, fence));
      ++i;
      out.push(codeBlock(inside.map((l) => l.slice(Math.min(indentOf(l), indentOf(line)))), fence.language));
    } else if (HEADING.test(bare)) {
      out.push(heading(bare));
      ++i;
    } else if (RULE.test(line)) {
      out.push(element("hr"));
      ++i;
    } else if (bare.startsWith(">")) {
      const inside = take((l) => l.trimStart().startsWith(">")).map((l) => l.trimStart().replace(/^> ?/, ""));
      out.push(element("blockquote", blocks(inside, depth + 1)));
    } else if (ITEM.test(line)) {
      const [node, end] = list(lines, i, depth);
      out.push(node);
      i = end;
    } else if (startsTable(lines, i)) {
      out.push(tableOf(take((l) => l.trim() && l.includes("|"))));
    } else {
      out.push(paragraph(take((l, k) => !endsParagraph(lines, k))));
    }
  }
  return out;
}

function draw(part) {
  if (typeof part === "string") return document.createTextNode(part);
  const node = make(part.tag, part.attributes);
  for (const child of part.children) node.append(draw(child));
  return node;
}

const alike = (a, b) => a.tag === b.tag && JSON.stringify(a.attributes) === JSON.stringify(b.attributes);

/** Makes a node's children from `at` on, which show `before`, show `after`. */
function patch(node, at, before, after) {
  after.forEach((part, i) => {
    const next = at?.nextSibling, old = before[i];
    if (i >= before.length) {
      node.append(draw(part));
    } else if (typeof part === "string" && typeof old === "string") {
      if (!part.startsWith(old)) at.data = part;
      else if (part !== old) at.appendData(part.slice(old.length));
    } else if (alike(part, old)) {
      patch(at, at.firstChild, old.children, part.children);
    } else {
      at.replaceWith(draw(part));
    }
    at = next;
  });
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** Shows a text that grows: blocks that can no longer change are read once. */
export class Markdown {
  constructor(node) {
    this.node = node;
    this.text = "";
    this.start([]);
  }

  start(parts) {
    this.node.replaceChildren(...parts);
    this.done = 0;  // of text, up to where its blocks are final
    this.final = 0;  // as many blocks
    this.open = parts;  // that may still change
  }

  set(text) {
    text = text.replace(/\r\n?/g, "\n");
    if (text === this.text) return;
    if (!text.startsWith(this.text)) this.start([]);
    this.text = text;
    try {
      this.grow();
    } catch (error) {
      console.error(error);
      this.start([text]);  // as it is, rather than nothing
    }
  }

  grow() {
    const lines = this.text.slice(this.done).split("\n"), began = [];
    const parts = blocks(lines, 0, began);
    patch(this.node, this.node.childNodes[this.final] ?? null, this.open, parts);
    // A block is final when the line that ended it, and the one after that (of a table), are whole:
    // the last line may go on.
    let count = 0;
    while (began[count + 1] + 2 < lines.length) ++count;
    for (const line of lines.slice(0, began[count] ?? 0)) this.done += line.length + 1;
    this.final += count;
    this.open = parts.slice(count);
  }
}
