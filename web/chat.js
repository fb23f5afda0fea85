// The chat: conversations, streaming, stop, edit, regenerate, and what each answer cost.

import {ApiError, events} from "./api.js";
import {$, bar, make, table} from "./dom.js";
import {Markdown} from "./markdown.js";
import {chats, settings} from "./store.js";

const WHY = {
  none: "all that could be cached was",
  never_seen: "nothing followed this beginning before",
  diverged: "what was cached goes on with another token",
  evicted: "it was cached, and given up for lack of room",
  window: "it fell out of the layers' window",
};
const WHERE = {
  queue: "waiting for a place",
  waiting_for_shared_prefix: "waiting for a prefix that another computed",
  prefill: "computing the prompt",
  others_prefill: "others' prompts",
  preempted: "preempted",
  decode: "computing the answer",
  output: "text",
};

let current = null;  // the chat that is shown
let running = null;  // AbortController of the answer that streams
let askForKey = async () => false;

const seconds = (s) => (s < 1 ? `${(s * 1e3).toFixed(0)} ms` : `${s.toFixed(2)} s`);

/** One line of figures, and a fold-out of the reasons. */
function reportOf(report) {
  const {usage, timings} = report;
  if (!usage) return null;
  const cached = usage.prompt_tokens_details.cached_tokens;
  const line = [`first token ${seconds(timings.prompt_ms / 1e3)}`, `${timings.predicted_per_second.toFixed(1)} tokens/s`,
                `${usage.completion_tokens} tokens`, `prompt ${usage.prompt_tokens}, ${cached} cached`].join(" · ");
  const own = usage.kvasir;
  if (!own) return make("span", {}, line);
  const why = [WHY[own.cache.ended_because] || own.cache.ended_because];
  if (own.cache.ended_because === "diverged" && own.cache.prompt_has != null)
    why.push(` (at token ${own.cache.diverged_at}: ${JSON.stringify(own.cache.cached_had)} was there, ${JSON.stringify(own.cache.prompt_has)} came)`);
  const times = Object.entries(WHERE).filter(([name]) => own.seconds[name] > 0.0005)
    .map(([name, text]) => [text, seconds(own.seconds[name]), bar(own.seconds[name] / own.seconds.total)]);
  return make("details", {class: "why"}, make("summary", {}, line),
              make("div", {}, `${cached} of ${usage.prompt_tokens} prompt tokens came from the cache: `, ...why, "."),
              table(["where the time went", "", ""], times));
}

class MessageView {
  constructor(message, index) {
    this.message = message;
    this.index = index;
    this.body = make("div", {class: "body"});
    this.thoughts = make("div", {class: "thoughts"});
    this.fold = make("details", {}, make("summary", {}, "Thoughts"), this.thoughts);
    this.fold.hidden = true;
    this.tools = make("div", {class: "tools"});
    this.node = make("article", {class: `message ${message.role}`, "aria-label": message.role === "user" ? "You" : "Answer"},
                     this.fold, this.body, this.tools);
    this.markdown = new Markdown(this.body);
    this.thinking = new Markdown(this.thoughts);
    this.show();
    this.finish();
  }

  show() {
    const {message} = this;
    this.node.classList.toggle("error", !!message.error);
    if (message.role === "user") this.body.textContent = message.content;
    else if (message.error && !message.content) this.body.textContent = message.error;
    else this.markdown.set(message.content);
    this.fold.hidden = !message.reasoning;
    if (message.reasoning) this.thinking.set(message.reasoning);
  }

  progress(part) {
    if (!this.bar) {
      this.bar = make("progress", {max: 1, "aria-label": "Reading the prompt"});
      this.tools.append(this.bar);
    }
    this.bar.value = part;
  }

  finish() {
    this.bar = null;
    this.body.classList.remove("cursor");
    const {message} = this;
    const unanswered = this.index + 1 === current.messages.length;  // the page was closed before
    const tools = message.role === "user"
      ? [make("button", {type: "button", onclick: () => this.edit()}, "Edit"),
         unanswered && make("button", {type: "button", onclick: () => regenerate(this.index + 1)}, "Ask again")]
      : [make("button", {type: "button", onclick: () => regenerate(this.index)}, "Regenerate"),
         message.report && reportOf(message.report), message.content ? message.error : !message.error && "no answer"];
    this.tools.replaceChildren(...tools.filter(Boolean));
  }

  edit() {
    if (running) return;
    const text = make("textarea", {rows: Math.min(12, this.message.content.split("\n").length + 1), "aria-label": "Edit"});
    text.value = this.message.content;
    const send = () => {
      if (running || !text.value.trim()) return;
      current.messages.length = this.index;
      ask(text.value);
    };
    const cancel = () => {
      this.show();
      this.finish();
    };
    this.body.replaceChildren(text);
    this.tools.replaceChildren(make("button", {type: "button", onclick: send}, "Send again"),
                               make("button", {type: "button", onclick: cancel}, "Cancel"));
    text.focus();
  }
}

function showList() {
  $("list").replaceChildren(...chats.all.map((chat) =>
    make("li", {"aria-current": chat === current ? "true" : null},
         make("button", {onclick: () => open(chat)}, chat.title),
         make("button", {class: "icon", "aria-label": `Delete ${chat.title}`, onclick: () => remove(chat)}, "×"))));
}

function showChat() {
  const views = (current?.messages || []).map((m, i) => new MessageView(m, i));
  $("messages").replaceChildren(...views.map((v) => v.node));
  scrollDown(true);
  return views;
}

function open(chat) {
  running?.abort();
  current = chat;
  $("conversations").classList.remove("open");
  showList();
  showChat();
}

function remove(chat) {
  chats.remove(chat);
  if (chat === current) open(chats.all[0] || null);
  showList();
}

/** Keeps a chat in this browser, or tells that there is no room. */
function keep(chat) {
  $("unkept").hidden = chats.save(chat);
}

/** Another tab has changed or deleted a chat. */
function changed(chat) {
  if (current && !chats.all.includes(current)) return open(chats.all[0] || null);
  showList();
  if (chat === current && !running) showChat();
}

/** Follows the text, but not away from where somebody reads. */
function scrollDown(always) {
  const box = $("messages");
  if (always || box.scrollHeight - box.scrollTop - box.clientHeight < 120) box.scrollTop = box.scrollHeight;
}

function bodyOf(messages) {
  const {system, ...sampling} = settings.all;
  // Many templates want question and answer by turns: what has no answer is left out, but for the last.
  const answered = (i) => i + 1 === messages.length || (messages[i + 1].role !== "user" && messages[i + 1].content);
  const said = messages.filter((m, i) => (m.role === "user" ? answered(i) : m.content)).map(({role, content}) => ({role, content}));
  return {
    messages: system ? [{role: "system", content: system}, ...said] : said,
    ...sampling, stream: true, stream_options: {include_usage: true}, return_progress: true, kvasir_report: true,
  };
}

/** While an answer streams, nothing is asked again. */
function setRunning(controller) {
  running = controller;
  $("send").hidden = !!running;
  $("stop").hidden = !running;
  $("messages").classList.toggle("busy", !!running);
}

/** Streams an answer to the messages so far. */
async function answer() {
  const chat = current;
  const body = bodyOf(chat.messages);
  const message = {role: "assistant", content: "", reasoning: ""};
  chat.messages.push(message);
  const view = showChat().at(-1);
  view.body.classList.add("cursor");
  view.tools.replaceChildren();
  setRunning(new AbortController());
  let drawn = false;  // a frame will be
  const draw = () => {
    if (drawn) return;
    drawn = true;
    requestAnimationFrame(() => {
      drawn = false;
      view.show();
      scrollDown();
    });
  };
  try {
    for await (const chunk of events("/v1/chat/completions", {body, signal: running.signal})) {
      if (chunk.error) throw new ApiError(500, chunk.error.message);
      const progress = chunk.prompt_progress;
      if (progress && !message.content) view.progress(progress.processed / progress.total);
      const delta = chunk.choices[0]?.delta;
      if (delta?.reasoning_content) message.reasoning += delta.reasoning_content;
      if (delta?.content) message.content += delta.content;
      if (chunk.usage) message.report = {usage: chunk.usage, timings: chunk.timings};
      draw();
    }
  } catch (error) {
    if (error.name === "AbortError") {
      // Stopped: what came until then stays.
    } else if (error.status === 401 && (await askForKey(error.message)) && chat === current) {
      chat.messages.pop();
      setRunning(null);
      return answer();
    } else {
      message.error = error instanceof ApiError ? error.message : `the server cannot be reached (${error.message})`;
    }
  }
  setRunning(null);
  keep(chat);
  if (chat === current) {
    view.show();
    view.finish();
    scrollDown();
  }
}

function ask(text) {
  if (!text.trim() || running) return;
  if (!current) current = chats.create();
  if (!current.messages.length) current.title = text.trim().slice(0, 60);
  current.messages.push({role: "user", content: text});
  keep(current);
  showList();
  answer();
}

function regenerate(index) {
  if (running) return;
  current.messages.length = index;
  answer();
}

function wireSettings() {
  for (const name of ["system", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"]) {
    const input = $("set-" + name);
    input.value = settings.all[name] ?? "";
    input.addEventListener("change", () => settings.set(name, name === "system" || input.value === "" ? input.value : Number(input.value)));
  }
}

function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  make("a", {href: url, download: name}).click();
  URL.revokeObjectURL(url);
}

export function startChat(askKey) {
  askForKey = askKey;
  wireSettings();
  const text = $("text");
  const grow = () => {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
  };
  const submit = () => {
    if (running || !text.value.trim()) return;
    ask(text.value);
    text.value = "";
    grow();
  };
  text.addEventListener("input", grow);
  text.addEventListener("keydown", (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
      e.preventDefault();
      submit();
    }
  });
  $("ask").addEventListener("submit", (e) => {
    e.preventDefault();
    submit();
  });
  $("stop").addEventListener("click", () => running?.abort());
  $("new").addEventListener("click", () => open(null));
  $("set-key").addEventListener("click", () => askForKey("The key that is sent with every request."));
  $("export").addEventListener("click", () => current && download(JSON.stringify(current, null, 2), "chat.json"));
  $("menu").addEventListener("click", () => {
    const shown = $("conversations").classList.toggle("open");
    $("menu").setAttribute("aria-expanded", shown);
  });
  chats.watch(changed, (chat) => running && chat === current);
  open(chats.all[0] || null);
}
