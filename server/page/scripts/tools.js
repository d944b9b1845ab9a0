// Tool calls in an answer: what the model wants to call, and a place for what the tool gives back.

import { colour } from "./code.js";
import { el, icon } from "./dom.js";
import { t } from "./i18n.js";

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch { // not whole yet
    return text;
  }
}

export class CallsView {
  /** `answer(message, results)` is called with a text for each call, in their order. */
  constructor(message, answer) {
    this.message = message;
    this.answer = answer;
    this.element = el("div", { class: "calls" });
    this.shown = "";
  }

  update(running) {
    const { calls } = this.message;
    const state = JSON.stringify([calls, Boolean(running), this.message.answered]);
    if (!calls?.length || state === this.shown) return;
    this.shown = state;
    const areas = [];
    const cards = calls.map((call) => {
      const code = el("code", { text: pretty(call.arguments) });
      if (!running) colour(code, "json");
      const card = el("div", { class: "call" }, el("div", { class: "call-name" }, icon("code"), el("span", { text: call.name })), el("pre", { tabindex: 0 }, code));
      if (!running && !this.message.answered) {
        const area = el("textarea", { rows: 2, spellcheck: "false", placeholder: t("tools.result"), "aria-label": t("tools.result_of", { name: call.name }) });
        areas.push(area);
        card.append(area);
      }
      return card;
    });
    this.element.replaceChildren(...cards);
    if (areas.length) {
      const send = el("button", { type: "button", class: "primary", text: t("tools.send") });
      send.addEventListener("click", () => this.answer(this.message, areas.map((area) => area.value)));
      this.element.append(send);
    }
  }
}
