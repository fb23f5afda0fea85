// The chat: conversations, streaming, stop, edit, regenerate.

import {ApiError, events} from "./api.js";
import {$, confirmed, make, setText} from "./dom.js";
import {follow, scrollDown, startFollowing} from "./follow.js";
import {drawList, startList} from "./list.js";
import {MessageView} from "./message.js";
import {chats, settings} from "./store.js";

const SAVE_EACH_MS = 3000;

let current = null;          // the chat that is shown
let views = [];              // of its messages
const streams = new Map();   // by chat, the answer that streams: {controller, message, messages, saved_ms}
const failures = new Map();  // by chat, until it is asked again, what came of its last request but no answer: {error?, edited?}
let askForKey = async () => false;

const isBusy = () => streams.has(current);
const focusText = () => matchMedia("(hover: none)").matches || $("text").focus();  // no keyboard pops up on phones

const actions = {
  busy: isBusy,
  cancelEdit() {
    failures.delete(current);
    show();
    focusText();
  },
  async edit(index, content) {
    const chat = current;
    if (!content.trim() || !(await mayCut(index + 2))) return;
    answer(chat, [...chat.messages.slice(0, index), {role: "user", content}], {index, content});
    focusText();
  },
  async regenerate(index) {
    const chat = current;
    if (!(await mayCut(index + 1))) return;
    answer(chat, chat.messages.slice(0, index));
    focusText();
  },
};

/** True if all messages from `end` on may be given up: what was asked and answered later. */
async function mayCut(end) {
  const chat = current, lost = chat.messages.length - end;
  const may = lost <= 0 || await confirmed(`${lost} later message${lost === 1 ? "" : "s"} will be deleted.`, "Delete");
  return may && chat === current && !isBusy();
}

/** Shows what is, whatever has changed. */
function show() {
  drawList(current, streams);
  showMessages();
  const busy = isBusy(), failure = failures.get(current);
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("messages").classList.toggle("busy", busy);
  $("messages").setAttribute("aria-busy", busy);
  setText($("failed"), failure?.error ?? "");
  document.title = current ? `${current.title} · Kvasir` : "Kvasir";
}

/** Views of messages that are shown already stay. */
function showMessages() {
  const stream = streams.get(current), messages = stream?.messages ?? current?.messages ?? [];
  let same = 0;
  while (same < messages.length && views[same]?.shows(messages[same])) ++same;
  for (const gone of views.splice(same)) gone.node.remove();
  for (let i = same; i < messages.length; ++i) views.push(new MessageView(messages[i], i, actions));
  $("messages").append(...views.slice(same).map((v) => v.node));
  for (const view of views) view.setLive(view.message === stream?.message);
  scrollDown();
}

function open(chat) {
  setDrawer(false);
  if (chat !== current || !chat) {
    current = chat;
    for (const gone of views.splice(0)) gone.node.remove();
    follow();
    show();
    editAgain();
  }
  focusText();
}

/** What was changed for a request that came to nothing. */
function editAgain() {
  const edited = failures.get(current)?.edited;
  if (edited) views[edited.index]?.edit(edited.content);
}

async function remove(chat) {
  if (!(await confirmed(`“${chat.title}” will be deleted.`, "Delete"))) return;
  streams.get(chat)?.controller.abort();
  chats.remove(chat);
  if (chat === current) open(chats.all[0] || null);
  show();
  focusText();
}

function rename(chat, title) {
  if (title.trim()) chat.title = title.trim();
  keep(chat);
  show();
  focusText();
}

/** Keeps a chat in this browser, or tells that there is no room. */
function keep(chat) {
  $("unkept").hidden = chats.save(chat);
}

/** Another tab has changed or deleted a chat. */
function changed() {
  for (const [chat, {controller}] of streams) if (!chats.all.includes(chat)) controller.abort();
  if (current && !chats.all.includes(current)) open(chats.all[0] || null);
  else show();
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

/** Takes a chunk of an answer. Only with the first text does the chat become what was asked: nothing is lost before. */
function take(chunk, chat, stream) {
  if (chunk.error) throw new ApiError(500, chunk.error.message);
  const {message} = stream, choice = chunk.choices[0], progress = chunk.prompt_progress;
  message.reasoning += choice?.delta?.reasoning_content ?? "";
  message.content += choice?.delta?.content ?? "";
  if (choice?.finish_reason) message.finish = choice.finish_reason;
  if (chunk.usage) message.report = {usage: chunk.usage, timings: chunk.timings};
  if (message.content || message.reasoning) chat.messages = stream.messages;
  else if (progress && chat === current) views.at(-1).progress(progress.processed / progress.total);
  if (chat.messages === stream.messages && performance.now() - stream.saved_ms > SAVE_EACH_MS) {
    stream.saved_ms = performance.now();
    keep(chat);
  }
}

/** Draws an answer once a frame while it is the one that is looked at. */
function drawSoon(chat, stream) {
  if (stream.frame || chat !== current) return;
  stream.frame = requestAnimationFrame(() => {
    stream.frame = 0;
    if (chat !== current || streams.get(chat) !== stream) return;
    views.at(-1).show();
    scrollDown();
  });
}

/**
 * Streams an answer to some messages, and puts both in the place of the chat's. `edited` was changed for it; it is edited
 * again if nothing comes.
 */
async function answer(chat, asked, edited) {
  const message = {role: "assistant", content: "", reasoning: ""};
  const stream = {controller: new AbortController(), message, messages: [...asked, message], saved_ms: performance.now()};
  streams.set(chat, stream);
  failures.delete(chat);
  follow();
  show();
  let failure = null;
  try {
    const {signal} = stream.controller;
    for await (const chunk of events("/v1/chat/completions", {body: bodyOf(asked), signal})) {
      take(chunk, chat, stream);
      drawSoon(chat, stream);
    }
    chat.messages = stream.messages;
  } catch (error) {
    failure = error;
  }
  const asksForKey = failure?.status === 401 && chat === current && (await askForKey(failure.message));
  if (asksForKey) return answer(chat, asked, edited);
  streams.delete(chat);
  end(chat, stream, failure, edited);
}

/** What comes of an answer that streams no more. */
function end(chat, stream, failure, edited) {
  const error = !failure || failure.name === "AbortError" ? null
    : failure instanceof ApiError ? failure.message : `the server cannot be reached (${failure.message})`;
  const began = chat.messages === stream.messages;
  if (began && error) stream.message.error = error;
  else if (began && failure) stream.message.finish = "stopped";
  if (!began) failures.set(chat, {error, edited});
  if (began) keep(chat);
  show();
  if (chat === current) editAgain();
}

/** The page is left: nobody would read what the engine still makes. */
function leave() {
  for (const [chat, stream] of streams) {
    stream.controller.abort();
    stream.message.finish = "stopped";
    if (chat.messages === stream.messages) keep(chat);
  }
}

function askNew(content) {
  if (!current) current = chats.create();
  if (!current.messages.length) current.title = content.trim().slice(0, 60);
  current.messages = [...current.messages, {role: "user", content}];
  keep(current);
  answer(current, current.messages);
}

function wireSettings() {
  for (const name of ["system", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"]) {
    const input = $("set-" + name);
    input.value = settings.all[name] ?? "";
    input.addEventListener("change", () => settings.set(name, name === "system" || input.value === "" ? input.value : Number(input.value)));
  }
}

function wireForm() {
  const text = $("text");
  const grow = () => {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
  };
  const submit = () => {
    if (isBusy() || !text.value.trim()) return;
    askNew(text.value);
    text.value = "";
    grow();
    focusText();
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
  $("stop").addEventListener("click", () => {
    streams.get(current)?.controller.abort();
    focusText();
  });
}

/** On narrow screens the conversations are a drawer. */
function setDrawer(open) {
  $("conversations").classList.toggle("open", open);
  $("menu").setAttribute("aria-expanded", open);
}

function wireDrawer() {
  const isOpen = () => $("conversations").classList.contains("open");
  $("menu").addEventListener("click", () => setDrawer(!isOpen()));
  addEventListener("keydown", (e) => {
    if (e.key !== "Escape" || !isOpen()) return;
    setDrawer(false);
    $("menu").focus();
  });
  addEventListener("pointerdown", ({target}) => {
    if (isOpen() && !target.closest("#conversations, #menu, dialog")) setDrawer(false);
  });
}

function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  make("a", {href: url, download: name}).click();
  URL.revokeObjectURL(url);
}

export function startChat(askKey) {
  askForKey = askKey;
  wireSettings();
  wireForm();
  wireDrawer();
  startList({open, remove, rename});
  startFollowing();
  $("new").addEventListener("click", () => open(null));
  $("set-key").addEventListener("click", () => askForKey("The key that is sent with every request."));
  $("export").addEventListener("click", () => current && download(JSON.stringify(current, null, 2), "chat.json"));
  addEventListener("pagehide", leave);
  chats.watch(changed, (chat) => streams.has(chat));
  open(chats.all[0] || null);
}
