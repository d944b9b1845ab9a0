// One message of the conversation on the page.

import { copy, el, iconButton } from "./dom.js";
import { number, seconds, t } from "./i18n.js";
import { MarkdownView } from "./markdown.js";
import { server } from "./store.js";
import { CallsView } from "./tools.js";

/** Tokens, speed, and what came out of the cache, in one line. */
export function figures(message) {
  const { timings, firstMs } = message;
  const parts = Object.keys(server.models).length > 1 && message.model ? [message.model] : [];
  if (timings) {
    if (timings.predicted_per_second) parts.push(t("figures.rate", { rate: number(timings.predicted_per_second, 1) }));
    parts.push(t("figures.tokens", { n: timings.predicted_n }));
    parts.push(t("figures.prompt", { n: timings.prompt_n + timings.cached_n, cached: timings.cached_n }));
    if (timings.queue_ms >= 1) parts.push(t("figures.queued", { time: seconds(timings.queue_ms / 1000) }));
  }
  if (firstMs !== undefined) parts.push(t("figures.first", { time: seconds(firstMs / 1000) }));
  if (message.finish === "length") parts.push(t("figures.length"));
  if (message.finish === "stopped") parts.push(t("figures.stopped"));
  return parts.join(" · ");
}

function attachments(files) {
  return el("div", { class: "files" }, files.map((file) =>
    el("details", { class: "file" }, el("summary", { text: file.name }), el("pre", { tabindex: 0, text: file.text }))));
}

/** An answer that is JSON, as far as it has come, is shown as code. */
function isJson(text, running) {
  if (!text.startsWith("{")) return false;
  if (running) return true;
  try {
    return Boolean(JSON.parse(text));
  } catch {
    return false;
  }
}

export class MessageView {
  /** actions: regenerate, edit, remove, show (a sibling), result (of a tool call); `family`: all siblings. */
  constructor(message, family, actions, running) {
    this.message = message;
    this.actions = actions;
    const { role } = message;
    this.body = el("div", { class: "body" });
    this.foot = el("div", { class: "foot" });
    this.note = el("div", { class: "notes" });
    const speaker = role === "user" ? t("chat.you") : role === "tool" ? t("tools.result_of", { name: message.name ?? "" }) : message.model ?? t("page.model");
    this.element = el("article", { class: `message ${role}` },
      el("h2", { class: role === "tool" ? "speaker" : "hidden-text", text: speaker }), this.body, this.note, this.foot);
    if (role === "assistant") this.#assistant();
    else this.#plain();
    this.#foot(family);
    this.update(running);
  }

  #plain() {
    const { content, attachments: files } = this.message;
    if (files?.length) this.body.append(attachments(files));
    if (content) this.body.append(el("div", { class: "bubble", text: content }));
  }

  #assistant() {
    this.thinking = el("details", { class: "reasoning", hidden: true }, this.summary = el("summary"), this.thoughts = el("div", { class: "markdown" }));
    this.wait = el("p", { class: "waiting" });
    this.text = el("div", { class: "markdown" });
    this.calls = new CallsView(this.message, this.actions.result);
    this.body.append(this.thinking, this.wait, this.text, this.calls.element);
    this.markdown = new MarkdownView(this.text);
    this.thoughtsMarkdown = new MarkdownView(this.thoughts);
    // Folded thoughts are laid out only when somebody looks.
    this.thinking.addEventListener("toggle", () => this.update(this.running));
  }

  #foot(family) {
    const { message, actions } = this;
    const { role } = message;
    this.buttons = el("div", { class: "actions" });
    if (family.length > 1) {
      const at = family.indexOf(message);
      const step = (by) => () => actions.show(family[at + by]);
      this.buttons.append(el("span", { class: "branches", role: "group", "aria-label": t("chat.versions") },
        iconButton("left", t("chat.previous"), step(-1), { disabled: at === 0 }),
        el("span", { text: t("chat.version", { at: at + 1, of: family.length }) }),
        iconButton("right", t("chat.next"), step(1), { disabled: at === family.length - 1 })));
    }
    const copyButton = iconButton("copy", t("chat.copy"), () => copy(message.content, copyButton));
    this.buttons.append(copyButton);
    if (role === "assistant") this.buttons.append(iconButton("again", t("chat.regenerate"), () => actions.regenerate(message), { class: "icon-button regenerate" }));
    if (role !== "tool") this.buttons.append(iconButton("edit", t("chat.edit"), () => this.#edit(), { class: "icon-button edit" }));
    this.buttons.append(iconButton("trash", t("chat.remove"), () => actions.remove(message)));
    this.figures = el("span", { class: "figures" });
    this.foot.append(this.buttons, this.figures);
  }

  #edit() {
    const { message } = this;
    const area = el("textarea", { "aria-label": t("chat.edit"), value: message.content, rows: Math.min(12, message.content.split("\n").length + 1) });
    const leave = () => {
      form.remove();
      this.body.hidden = this.foot.hidden = false;
      this.element.classList.remove("editing");
    };
    const form = el("form", { class: "edit-form" }, area, el("div", { class: "row" },
      el("button", { type: "submit", class: "primary", text: message.role === "user" ? t("chat.send") : t("page.save") }),
      el("button", { type: "button", text: t("page.cancel"), onclick: leave })));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (area.value.trim()) this.actions.edit(message, area.value);
    });
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        leave();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && message.role === "user") {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.body.hidden = this.foot.hidden = true;
    this.element.classList.add("editing");
    this.element.append(form);
    area.focus();
  }

  /** Show the message as it is now. */
  update(running) {
    const { message } = this;
    this.running = running;
    this.element.classList.toggle("running", Boolean(running));
    this.element.setAttribute("aria-busy", String(Boolean(running)));
    if (message.role === "assistant") {
      this.#updateReasoning(running);
      this.markdown.update(isJson(message.content, running) ? `\`\`\`json\n${message.content}\n\`\`\`` : message.content, !running);
      this.calls.update(running);
      const waiting = running && !message.content && !message.calls?.length && !message.reasoning;
      this.wait.hidden = !waiting;
      this.wait.textContent = waiting ? running.progress ?? t("chat.waiting") : "";
    }
    this.figures.textContent = running ? "" : figures(message);
    this.#notes();
  }

  #updateReasoning(running) {
    const { message } = this;
    this.thinking.hidden = !message.reasoning;
    if (!message.reasoning) return;
    const now = running && message.thinkingMs === undefined;
    this.summary.textContent = now ? t("chat.thinking") : t("chat.thought", { time: seconds((message.thinkingMs ?? 0) / 1000) });
    if (this.thinking.open) this.thoughtsMarkdown.update(message.reasoning, !now);
  }

  #notes() {
    const { error, warnings } = this.message;
    const lines = (warnings ?? []).map((text) => el("p", { class: "note", text }));
    if (error) {
      lines.push(el("p", { class: "note error", role: "alert" }, el("span", { text: error }),
        el("button", { type: "button", text: t("chat.retry"), onclick: () => this.actions.regenerate(this.message) })));
    }
    this.note.replaceChildren(...lines);
  }
}
