// Where a message is written: text, text files, send and stop.

import { chooseFiles, el, grow, iconButton, toast } from "./dom.js";
import { bytes, t } from "./i18n.js";

const MAX_FILE = 1 << 20;

/** The text of a file. Throws an Error in words if it is too large or not text. */
async function readText(file) {
  if (file.size > MAX_FILE) throw new Error(t("files.large", { name: file.name, size: bytes(MAX_FILE) }));
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (text.includes("\0")) throw new Error("binary");
    return { name: file.name, text };
  } catch {
    throw new Error(t("files.binary", { name: file.name }));
  }
}

const DRAFT = "ggserve.draft";

export class Composer {
  /** actions: ask(text, files), stop(), editLast(). */
  constructor(actions) {
    this.actions = actions;
    this.files = [];
    this.input = el("textarea", { id: "input", rows: 1, "aria-label": t("chat.message"), placeholder: t("chat.placeholder") });
    this.chips = el("div", { class: "chips", hidden: true });
    this.send = iconButton("send", t("chat.send"), undefined, { type: "submit", class: "icon-button round primary", id: "send" });
    this.stop = iconButton("stop", t("chat.stop"), actions.stop, { class: "icon-button round primary", id: "stop", hidden: true });
    const attach = iconButton("attach", t("files.attach"), async () => this.attach(await chooseFiles("", true)), { id: "attach" });
    this.element = el("form", { class: "composer" }, this.chips, this.input,
      el("div", { class: "composer-row" }, attach, el("span", { class: "hint", text: t("chat.keys") }), el("span", { class: "grow" }), this.send, this.stop));
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("input", () => this.#changed());
    this.input.addEventListener("paste", (event) => event.clipboardData.files.length && this.attach([...event.clipboardData.files]));
    for (const name of ["dragover", "drop"]) {
      this.element.addEventListener(name, (event) => {
        if (!event.dataTransfer.types.includes("Files")) return;
        event.preventDefault();
        if (name === "drop") this.attach([...event.dataTransfer.files]);
      });
    }
    try {
      this.input.value = sessionStorage.getItem(DRAFT) ?? "";
    } catch { /* no storage */ }
    queueMicrotask(() => grow(this.input));
  }

  focus() {
    // On a phone the keyboard would cover the page.
    if (!matchMedia("(max-width: 760px) and (pointer: coarse)").matches) this.input.focus();
  }

  setRunning(yes) {
    const focused = [this.send, this.stop].includes(document.activeElement);
    this.running = yes;
    this.send.hidden = yes;
    this.stop.hidden = !yes;
    if (focused) this.focus();
  }

  async attach(files) {
    for (const file of files) {
      try {
        this.files.push(await readText(file));
      } catch (error) {
        toast(error.message);
      }
    }
    this.#drawChips();
    this.focus();
  }

  #drawChips() {
    this.chips.hidden = !this.files.length;
    this.chips.replaceChildren(...this.files.map((file) => el("span", { class: "chip" }, el("span", { text: file.name }),
      iconButton("close", t("files.remove", { name: file.name }), () => {
        this.files = this.files.filter((other) => other !== file);
        this.#drawChips();
        this.focus();
      }))));
  }

  #changed() {
    grow(this.input);
    try {
      sessionStorage.setItem(DRAFT, this.input.value);
    } catch { /* no storage */ }
  }

  #key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "ArrowUp" && !this.input.value && !this.running) {
      event.preventDefault();
      this.actions.editLast();
    }
  }

  #submit() {
    const text = this.input.value.trim();
    if (this.running || (!text && !this.files.length)) return;
    const { files } = this;
    this.files = [];
    this.input.value = "";
    this.#drawChips();
    this.#changed();
    this.actions.ask(text, files);
  }
}
