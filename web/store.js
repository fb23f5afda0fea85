// Conversations and settings, kept in this browser.

// Each chat is an entry of its own: tabs must not overwrite each other's.
const CHAT = "kvasir.chat.", LIST = "kvasir.chats", SETTINGS = "kvasir.settings";

function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** False if there is no room. */
function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

export const settings = {
  all: read(SETTINGS, {system: "", temperature: 0.7}),
  set(name, value) {
    this.all = read(SETTINGS, this.all);  // another tab may have changed others
    if (value === "" || Number.isNaN(value)) delete this.all[name];
    else this.all[name] = value;
    write(SETTINGS, this.all);
  },
};

const newId = () => crypto.randomUUID?.() ?? String(Date.now() + Math.random());
const newestFirst = (a, b) => b.created - a.created;
const isChat = (c) => typeof c?.id === "string" && typeof c.title === "string" && Array.isArray(c.messages) &&
  c.messages.every((m) => typeof m?.content === "string");

/** The chat as it is kept now; null if it is not. */
function kept(id) {
  const chat = read(CHAT + id, null);
  return isChat(chat) && chat.id === id ? chat : null;
}

/** Once all chats were one list: each gets its entry. */
function splitList() {
  const left = read(LIST, []).filter?.((c) => isChat(c) && !kept(c.id)) ?? [], moved = [];
  localStorage.removeItem(LIST);
  while (left.length && write(CHAT + left[0].id, {...left[0], created: -moved.length})) moved.push(left.shift());
  // Those for which there is no room wait for it where they were.
  while (left.length && !write(LIST, left) && moved.length) {
    left.unshift(moved.pop());
    localStorage.removeItem(CHAT + left[0].id);
  }
}

function all() {
  splitList();
  return Object.keys(localStorage).filter((name) => name.startsWith(CHAT)).map((name) => kept(name.slice(CHAT.length)))
    .filter(Boolean).sort(newestFirst);
}

/** {id, title, created, messages: [{role, content, reasoning?, report?, error?}]}, newest first. */
export const chats = {
  all: all(),
  /** Keeps a chat, unless it was deleted. False if there is no room: nothing else is given up for it. */
  save(chat) {
    return !this.all.includes(chat) || write(CHAT + chat.id, chat);
  },
  create() {
    const chat = {id: newId(), title: "New chat", created: Date.now(), messages: []};
    this.all.unshift(chat);
    return chat;
  },
  remove(chat) {
    this.all = this.all.filter((c) => c !== chat);
    localStorage.removeItem(CHAT + chat.id);
  },
  /** Takes over what other tabs do, and calls changed(chat). Of a chat that is busy here both versions stay. */
  watch(changed, busy) {
    const look = (id) => {
      const mine = this.all.find((c) => c.id === id), theirs = kept(id);
      if (mine && !theirs) this.all = this.all.filter((c) => c !== mine);
      else if (mine && !busy(mine)) Object.assign(mine, theirs);
      else if (theirs) {
        if (mine) mine.id = newId();
        this.all = [...this.all, theirs].sort(newestFirst);
        if (mine) this.save(mine);
      }
      changed(mine);
    };
    addEventListener("storage", ({key}) => {
      if (key === null) this.all.map((c) => c.id).forEach(look);
      else if (key.startsWith(CHAT)) look(key.slice(CHAT.length));
    });
  },
};
