// Conversations and settings, kept in this browser.

const CHATS = "kvasir.chats", SETTINGS = "kvasir.settings";

function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export const settings = {
  all: read(SETTINGS, {system: "", temperature: 0.7}),
  set(name, value) {
    if (value === "" || Number.isNaN(value)) delete this.all[name];
    else this.all[name] = value;
    localStorage.setItem(SETTINGS, JSON.stringify(this.all));
  },
};

/** {id, title, messages: [{role, content, reasoning?, report?, error?}]}, newest first. */
export const chats = {
  all: read(CHATS, []),
  save() {
    // Short of room the oldest go.
    while (true) {
      try {
        return localStorage.setItem(CHATS, JSON.stringify(this.all));
      } catch (error) {
        if (this.all.length < 2) throw error;
        this.all.pop();
      }
    }
  },
  create() {
    const chat = {id: crypto.randomUUID?.() ?? String(Date.now() + Math.random()), title: "New chat", messages: []};
    this.all.unshift(chat);
    return chat;
  },
  remove(id) {
    this.all = this.all.filter((c) => c.id !== id);
    this.save();
  },
};
