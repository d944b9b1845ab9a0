// The chat: messages, their branches, and the answers that are being written.

import { Composer } from "./composer.js";
import { add, branch, cut, show, siblings } from "./conversation.js";
import { announce, el, iconButton, toast } from "./dom.js";
import { generate } from "./generate.js";
import { t } from "./i18n.js";
import { discard, keep, library, refresh } from "./library.js";
import { MessageView } from "./message.js";
import { on, server } from "./store.js";

const runs = new Map(); // conversation id → {controller, message, progress}
const views = new Map(); // message id → MessageView, of what is shown
let scroller, thread, toEnd, composer;
let frame = 0;

const running = () => runs.get(library.open.id) ?? null;
const atEnd = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 60;
const scrollToEnd = () => (scroller.scrollTop = scroller.scrollHeight);

export function stop() {
  running()?.controller.abort();
}

export const isRunning = () => running() !== null;
export const focusInput = () => composer.focus();

function draw() {
  const messages = branch(library.open);
  views.clear();
  const run = running();
  for (const message of messages) {
    message.answered = messages.some((other) => other.parent === message.id && other.role === "tool");
    views.set(message.id, new MessageView(message, siblings(library.open, message), actions, run?.message === message ? run : null));
  }
  thread.replaceChildren(...[...views.values()].map((view) => view.element));
  if (!messages.length) thread.append(el("div", { class: "empty" }, el("h2", { text: t("chat.hello") }), el("p", { text: t("chat.hint", { model: server.model ?? "" }) })));
  setBusy(run !== null);
}

function setBusy(yes) {
  composer.setRunning(yes);
  scroller.setAttribute("aria-busy", String(yes));
}

/** At most once for each painted frame: a fast model writes more often than a screen can show. */
function changed(conversation, message) {
  if (frame || conversation !== library.open) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    const end = atEnd();
    views.get(message.id)?.update(running());
    if (end) scrollToEnd();
  });
}

async function answer(conversation, parent) {
  if (runs.has(conversation.id)) return;
  const message = add(conversation, parent, { role: "assistant", content: "", model: server.model });
  const run = { controller: new AbortController(), message };
  runs.set(conversation.id, run);
  keep(conversation);
  draw();
  scrollToEnd();
  let kept = performance.now();
  await generate(conversation, message, run, () => {
    changed(conversation, message);
    if (performance.now() - kept > 2000) { // so that a reload loses little
      kept = performance.now();
      keep(conversation, { touch: false });
    }
  });
  runs.delete(conversation.id);
  await keep(conversation);
  if (conversation !== library.open) return;
  const end = atEnd();
  views.get(message.id)?.update(null); // only this one: what is selected or unfolded elsewhere stays
  setBusy(false);
  if (end) scrollToEnd();
  announce(message.error ? `${t("page.error")}: ${message.error}` : t("chat.finished"));
}

const actions = {
  regenerate: (message) => answer(library.open, message.parent),
  edit(message, text) {
    if (isRunning()) return;
    const { id, parent, children, error, warnings, timings, finish, firstMs, ...rest } = message;
    const edited = add(library.open, parent, { ...rest, content: text });
    if (message.role === "user") answer(library.open, edited.id);
    else {
      keep();
      draw();
    }
    composer.focus();
  },
  remove(message) {
    if (isRunning()) return;
    const conversation = library.open;
    const { messages, leaf } = conversation;
    cut(conversation, message);
    const empty = !conversation.messages.length;
    if (empty) Object.assign(conversation, { messages, leaf });
    if (empty) return void discard(conversation);
    changeTo(conversation);
    toast(t("chat.removed"), { label: t("page.undo"), run: () => changeTo(Object.assign(conversation, { messages, leaf })) });
    composer.focus();
  },
  show(message) {
    if (isRunning()) return;
    show(library.open, message);
    keep(library.open, { touch: false });
    draw();
  },
  result(message, results) {
    let { id } = message;
    message.calls.forEach((call, i) => ({ id } = add(library.open, id, { role: "tool", call: call.id, name: call.name, content: results[i] })));
    answer(library.open, id);
  },
};

function changeTo(conversation) {
  keep(conversation);
  if (conversation === library.open) draw();
}

function ask(content, files) {
  const conversation = library.open;
  const message = add(conversation, conversation.leaf, { role: "user", content, ...(files.length ? { attachments: files } : {}) });
  answer(conversation, message.id);
}

/** The last question in the composer's place, to be edited. */
function editLast() {
  const last = branch(library.open).findLast((message) => message.role === "user");
  if (last) views.get(last.id).element.querySelector(".edit").click();
}

export function createChat(root) {
  composer = new Composer({ ask, stop, editLast });
  thread = el("div", { class: "thread column" });
  toEnd = iconButton("down", t("chat.to_end"), scrollToEnd, { class: "icon-button to-end", hidden: true });
  scroller = el("div", { class: "scroller", role: "log", tabindex: 0, "aria-label": t("chat.log") }, thread);
  scroller.addEventListener("scroll", () => (toEnd.hidden = atEnd()));
  root.append(el("h1", { class: "hidden-text", text: t("views.chat") }), scroller, el("div", { class: "dock column" }, toEnd, composer.element));
  on("conversation", () => {
    draw();
    scrollToEnd();
    composer.focus();
  });
  on("model", draw);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && !runs.size) refresh(); // another tab may have written
  });
  addEventListener("pagehide", () => isRunning() && keep(library.open, { touch: false }));
  draw();
  scrollToEnd();
}
