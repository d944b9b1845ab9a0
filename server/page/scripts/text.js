// A text that the model continues, without a chat template.

import { stream } from "./api.js";
import { el } from "./dom.js";
import { t } from "./i18n.js";
import { library } from "./library.js";
import { load, save } from "./local.js";
import { figures } from "./message.js";
import { generationFields } from "./request.js";
import { server } from "./store.js";

export function createText(root) {
  const area = el("textarea", { id: "text", spellcheck: "false", "aria-label": t("text.label"), value: load("text", t("text.example")) });
  const status = el("p", { class: "figures", role: "status" });
  const go = el("button", { type: "submit", class: "primary", text: t("text.go") });
  const halt = el("button", { type: "button", text: t("chat.stop"), hidden: true });
  const back = el("button", { type: "button", text: t("page.undo"), disabled: true });
  const form = el("form", { class: "text-form column" }, el("h1", { class: "hidden-text", text: t("views.text") }), el("p", { class: "quiet", text: t("text.hint") }), area, el("div", { class: "row" }, go, halt, back, status));
  root.append(form);
  let controller = null;
  let before = null;
  area.addEventListener("input", () => save("text", area.value));
  halt.addEventListener("click", () => controller?.abort());
  back.addEventListener("click", () => {
    area.value = before;
    back.disabled = true;
    save("text", area.value);
    area.focus();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  root.addEventListener("keydown", (event) => event.key === "Escape" && controller?.abort());

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (controller) return;
    controller = new AbortController();
    before = area.value;
    go.hidden = area.readOnly = true;
    halt.hidden = false;
    halt.focus();
    status.textContent = "";
    const result = {};
    const started = performance.now();
    const body = { model: server.model, prompt: area.value, ...generationFields(library.open.settings), stream: true, stream_options: { include_usage: true } };
    try {
      for await (const piece of stream("v1/completions", body, controller.signal)) {
        const choice = piece.choices?.[0];
        if (choice?.text) {
          result.firstMs ??= performance.now() - started;
          const end = area.scrollHeight - area.scrollTop - area.clientHeight < 60;
          area.value += choice.text;
          if (end) area.scrollTop = area.scrollHeight;
        }
        if (choice?.finish_reason) result.finish = choice.finish_reason;
        if (piece.timings) result.timings = piece.timings;
        if (piece.warnings?.length) result.warnings = piece.warnings;
      }
    } catch (error) {
      if (error.name === "AbortError") result.finish = "stopped";
      else result.error = `${t("page.error")}: ${error.message}`;
    }
    controller = null;
    status.textContent = result.error ?? [figures(result), ...(result.warnings ?? [])].join(" · ");
    go.hidden = area.readOnly = back.disabled = false;
    halt.hidden = true;
    go.focus();
    save("text", area.value);
  });
}
