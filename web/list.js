// The list of conversations.

import {$, make, setText} from "./dom.js";
import {chats} from "./store.js";

const rows = new WeakMap();  // by chat
let actions = {};            // open(chat), remove(chat), rename(chat, title)

export function startList(what) {
  actions = what;
}

class Row {
  constructor(chat) {
    this.chat = chat;
    this.title = make("button", {onclick: () => actions.open(chat)});
    this.live = make("span", {class: "live", role: "img", "aria-label": "an answer streams", hidden: true});
    this.renames = make("button", {class: "icon", onclick: () => this.rename()}, "✎");
    this.removes = make("button", {class: "icon", onclick: () => actions.remove(chat)}, "×");
    this.node = make("li", {}, this.title, this.live, this.renames, this.removes);
  }

  show(isCurrent, isLive) {
    const {title} = this.chat;
    setText(this.title, title);
    this.title.title = title;
    this.live.hidden = !isLive;
    this.renames.setAttribute("aria-label", `Rename ${title}`);
    this.removes.setAttribute("aria-label", `Delete ${title}`);
    if (isCurrent) this.node.setAttribute("aria-current", "true");
    else this.node.removeAttribute("aria-current");
  }

  rename() {
    const input = make("input", {"aria-label": "Title", maxlength: 120});
    input.value = this.chat.title;
    let ended = false;
    const end = (title) => {
      if (ended) return;
      ended = true;  // its removal takes the focus away, which would end it again
      input.replaceWith(this.title);
      actions.rename(this.chat, title);
    };
    input.addEventListener("blur", () => end(input.value));
    input.addEventListener("keydown", (e) => {
      if (e.isComposing) return;
      if (e.key === "Enter") end(input.value);
      if (e.key === "Escape") end(this.chat.title);
      e.stopPropagation();
    });
    this.title.replaceWith(input);
    input.select();
  }
}

/** Rows stay as they are, with the focus or an input in them. */
export function drawList(current, streams) {
  const nodes = chats.all.map((chat) => {
    if (!rows.has(chat)) rows.set(chat, new Row(chat));
    const row = rows.get(chat);
    row.show(chat === current, streams.has(chat));
    return row.node;
  });
  const list = $("list");
  if (nodes.length !== list.children.length || nodes.some((n, i) => n !== list.children[i])) list.replaceChildren(...nodes);
}
