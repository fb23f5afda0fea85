// One message of a conversation: its text, its thoughts, what it cost, and what can be done with it.

import {bar, make, table} from "./dom.js";
import {Markdown} from "./markdown.js";

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

const seconds = (s) => (s < 1 ? `${(s * 1e3).toFixed(0)} ms` : `${s.toFixed(2)} s`);
const button = (text, onclick, more) => make("button", {type: "button", onclick, ...more}, text);

/** One line of figures, and a fold-out of the reasons. */
function reportOf(report) {
  const {usage, timings} = report;
  if (!usage) return null;
  const cached = usage.prompt_tokens_details.cached_tokens;
  const line = [`first token ${seconds(timings.ttft_ms / 1e3)}`, `${timings.predicted_per_second.toFixed(1)} tokens/s`,
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

/** What tells a whole answer from one that is not. */
function noteOf({content, error, finish, report}) {
  if (error) return null;
  if (finish === "length") return report?.usage ? `cut at ${report.usage.completion_tokens} tokens` : "cut";
  if (finish === "stopped" || (!finish && !report)) return finish ?? "not finished";  // as another tab still writes it, or died with it
  return content ? null : "no answer";
}

/** The element in which the text ends. */
function endOf(node) {
  const inner = [...node.children].findLast((n) => n.matches("p, ul, ol, li, blockquote, h3, h4, h5, h6, .code, pre, pre > code"));
  return inner ? endOf(inner) : node;
}

export class MessageView {
  /** `actions`: busy(), edit(index, text), cancelEdit(), regenerate(index). */
  constructor(message, index, actions) {
    this.message = message;
    this.index = index;
    this.actions = actions;
    this.live = false;
    this.body = make("div", {class: "body"});
    this.thoughts = make("div", {class: "body thoughts"});
    this.summary = make("summary", {}, "Thoughts");
    this.fold = make("details", {hidden: true}, this.summary, this.thoughts);
    this.error = make("p", {class: "error", role: "alert", hidden: true});
    this.tools = make("div", {class: "tools"});
    this.node = make("article", {class: `message ${message.role}`, "aria-label": message.role === "user" ? "You" : "Answer"},
                     this.fold, this.body, this.error, this.tools);
    this.markdown = new Markdown(this.body);
    this.thinking = new Markdown(this.thoughts);
    this.show();
    this.showTools();
  }

  /** True if this is what is shown. */
  shows(message) {
    if (this.message !== message && JSON.stringify(this.message) !== JSON.stringify(message)) return false;
    this.message = message;
    return true;
  }

  show() {
    const {content, reasoning, error, role} = this.message;
    if (role === "user") this.body.textContent = content;
    else this.markdown.set(content);
    this.fold.hidden = !reasoning;
    if (reasoning) this.thinking.set(reasoning);
    this.error.hidden = !error;
    this.error.textContent = error ?? "";
    this.showCursor();
  }

  showCursor() {
    const {content, reasoning} = this.message;
    this.cursor?.classList.remove("cursor");
    this.summary.textContent = this.live && !content ? "Thinking …" : "Thoughts";
    if (!this.live) return;
    if (content || reasoning) this.bar?.remove();
    this.cursor = endOf(content || !reasoning ? this.body : this.thoughts);
    this.cursor.classList.add("cursor");
  }

  progress(part) {
    if (!this.bar) {
      this.bar = make("progress", {max: 1, "aria-label": "Reading the prompt"});
      this.tools.append(this.bar);
    }
    this.bar.value = part;
  }

  /** Says whether the message still grows. */
  setLive(live) {
    if (live === this.live) return;
    this.live = live;
    this.show();
    this.showTools();
  }

  showTools() {
    const {message, index, actions} = this;
    this.bar = null;
    const tools = this.live ? [] : message.role === "user"
      ? [button("Edit", () => this.edit(message.content)), button("Ask again", () => actions.regenerate(index + 1), {class: "again"})]
      : [button("Regenerate", () => actions.regenerate(index)), noteOf(message) && make("span", {class: "note"}, noteOf(message)),
         message.report && reportOf(message.report)];
    this.tools.replaceChildren(...tools.filter(Boolean));
  }

  edit(content) {
    if (this.actions.busy()) return;
    const text = make("textarea", {rows: Math.min(12, content.split("\n").length + 1), "aria-label": "Edit"});
    text.value = content;
    const cancel = () => {
      this.show();
      this.showTools();
      this.actions.cancelEdit();
    };
    text.addEventListener("keydown", (e) => {
      if (e.key === "Escape") cancel();
    });
    this.body.replaceChildren(text);
    this.tools.replaceChildren(button("Send again", () => this.actions.edit(this.index, text.value)), button("Cancel", cancel));
    text.focus();
  }
}
