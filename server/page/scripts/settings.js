// The settings beside the chat. An empty field means: the server's default, which is shown in it.

import { chatBody, asCurl, asPython } from "./request.js";
import { isObject, NO_SETTINGS, OUTPUT, SAMPLING, settingsFrom } from "./conversation.js";
import { $, copy, el, iconButton, toast } from "./dom.js";
import { LANGUAGES, language, t } from "./i18n.js";
import { keepSettings, library } from "./library.js";
import { key, load, save } from "./local.js";
import { loadProps, on, server } from "./store.js";

const EFFORTS = ["none", "low", "medium", "high"];
const PRESETS = [
  { key: "presets.server", params: {} },
  { key: "presets.precise", params: { temperature: 0.2 } },
  { key: "presets.creative", params: { temperature: 1.1, min_p: 0.05 } },
];

const current = () => library.open.settings;
const fields = []; // {show()} of everything that shows a setting
let problem;

function changed() {
  keepSettings();
  for (const field of fields) field.show();
}

/** What the server takes where a request says nothing. */
function fallback(name) {
  const defaults = server.props?.default_generation_settings;
  const value = name === "batch_size" ? defaults?.n_batch : defaults?.params[name];
  if (value === undefined || value === null) return "";
  if (name === "seed" && value === 4294967295) return t("settings.random");
  if (name === "max_tokens" && value < 0) return t("settings.unlimited");
  return String(Math.round(value * 1e6) / 1e6);
}

function numberField([name, min, max, step]) {
  const input = el("input", { type: "number", id: `set-${name}`, min, max, step: "any", inputmode: "decimal", "data-step": step });
  const reset = iconButton("undo", t("settings.reset", { name: t(`settings.${name}`) }), () => {
    delete current().params[name];
    changed();
    input.focus();
  });
  const line = el("div", { class: "field" }, el("label", { for: input.id, text: t(`settings.${name}`) }), el("div", { class: "input" }, input, reset));
  input.addEventListener("input", () => {
    const value = input.valueAsNumber;
    const whole = step !== 1 || Number.isInteger(value);
    const valid = !Number.isNaN(value) && input.validity.valid && whole;
    input.setAttribute("aria-invalid", String(input.value !== "" && !valid));
    if (valid) current().params[name] = value;
    else delete current().params[name]; // an invalid value is marked and not sent
    keepSettings();
    line.classList.toggle("set", name in current().params);
    problem();
  });
  input.addEventListener("keydown", (event) => { // arrows step as the field suggests, and start at the default
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    event.preventDefault();
    const start = input.value === "" ? Number(fallback(name)) : input.valueAsNumber;
    const next = Math.round(((Number.isNaN(start) ? min : start) + (event.key === "ArrowUp" ? step : -step)) * 1e6) / 1e6;
    input.value = Math.min(max ?? next, Math.max(min, next));
    input.dispatchEvent(new Event("input"));
  });
  fields.push({
    show() {
      const value = current().params[name];
      if (document.activeElement !== input || value === undefined) input.value = value ?? "";
      input.placeholder = fallback(name);
      input.setAttribute("aria-invalid", "false");
      line.classList.toggle("set", value !== undefined);
    },
  });
  return line;
}

function textField(name, rows, check) {
  const area = el("textarea", { id: `set-${name}`, rows, spellcheck: name === "system" ? undefined : "false", placeholder: t(`settings.${name}_hint`) });
  const wrong = el("p", { class: "wrong", id: `wrong-${name}`, role: "alert" });
  area.setAttribute("aria-describedby", wrong.id);
  const judge = () => {
    wrong.textContent = check?.(area.value) ?? "";
    area.setAttribute("aria-invalid", String(wrong.textContent !== ""));
  };
  area.addEventListener("input", () => {
    current()[name] = area.value;
    judge();
    keepSettings();
    problem();
  });
  fields.push({
    show() {
      if (document.activeElement !== area) area.value = current()[name];
      judge();
    },
  });
  return el("div", { class: "field" }, el("label", { for: area.id, text: t(`settings.${name}`) }), area, wrong);
}

/** The complaint about a JSON text that is not of the kind, else "". */
function checkJson(text, isRight, kind) {
  if (!text.trim()) return "";
  try {
    return isRight(JSON.parse(text)) ? "" : t(`settings.${kind}_kind`);
  } catch (error) {
    return t("settings.not_json", { reason: error.message });
  }
}

function selectField(id, label, options, value, onchange) {
  const select = el("select", { id }, Object.entries(options).map(([name, text]) => el("option", { value: name, text })));
  select.value = value;
  select.addEventListener("change", () => onchange(select.value));
  return { select, line: el("div", { class: "field" }, el("label", { for: id, text: label }), select) };
}

function presets() {
  const select = el("select", { id: "preset" });
  const own = () => load("presets", []).filter((preset) => typeof preset?.name === "string");
  const draw = () => {
    select.replaceChildren(
      el("option", { value: "", text: t("presets.choose") }),
      ...PRESETS.map((preset, i) => el("option", { value: `built-in ${i}`, text: t(preset.key) })),
      ...own().map((preset, i) => el("option", { value: `own ${i}`, text: preset.name })),
    );
    remove.disabled = true;
  };
  const chosen = () => {
    const [kind, i] = select.value.split(" ");
    return kind === "own" ? settingsFrom(own()[i].settings) : { ...current(), params: { ...PRESETS[i].params } };
  };
  select.addEventListener("change", () => {
    remove.disabled = !select.value.startsWith("own");
    if (!select.value) return;
    Object.assign(current(), structuredClone(chosen()));
    changed();
  });
  const name = el("input", { id: "preset-name", maxlength: 60, placeholder: t("presets.name"), "aria-label": t("presets.name") });
  const keep = el("form", { class: "input" }, name, el("button", { type: "submit", text: t("page.save") }));
  keep.addEventListener("submit", (event) => {
    event.preventDefault();
    const title = name.value.trim();
    if (!title) return name.focus();
    save("presets", [...own().filter((preset) => preset.name !== title), { name: title, settings: current() }]);
    name.value = "";
    draw();
    select.value = `own ${own().length - 1}`;
    remove.disabled = false;
    toast(t("presets.saved", { name: title }));
  });
  const remove = iconButton("trash", t("presets.delete"), () => {
    save("presets", own().filter((_, i) => select.value !== `own ${i}`));
    draw();
  });
  draw();
  return el("div", { class: "field" }, el("label", { for: "preset", text: t("presets.title") }), el("div", { class: "input" }, select, remove), keep);
}

function group(title, open, ...children) {
  return el("details", { class: "group", open }, el("summary", { text: title }), ...children);
}

/** What has no effect on a text without a chat template. */
function ofChats(element) {
  element.classList.add("of-chats");
  return element;
}

function elsewhere() {
  const button = (label, write) => {
    const b = el("button", { type: "button", text: label });
    b.addEventListener("click", () => {
      try {
        const body = chatBody(library.open, server.model);
        if (!body.messages.some((message) => message.role !== "system")) body.messages.push({ role: "user", content: $("input").value || t("chat.example") });
        copy(write(body, key.get() !== ""), b);
      } catch (error) {
        toast(t("settings.not_json", { reason: error.message }));
      }
    });
    return b;
  };
  return el("div", { class: "row" }, button(t("settings.curl"), asCurl), button(t("settings.python"), asPython));
}

function pageSettings() {
  const languages = selectField("language", t("settings.language"), LANGUAGES, language, (value) => {
    save("language", value);
    location.reload();
  });
  const themes = { auto: t("settings.theme_auto"), light: t("settings.theme_light"), dark: t("settings.theme_dark") };
  const theme = selectField("theme", t("settings.theme"), themes, load("theme", "auto"), (value) => {
    save("theme", value);
    if (value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = value;
  });
  const keyInput = el("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", value: key.get() });
  keyInput.addEventListener("change", () => {
    key.set(keyInput.value.trim());
    loadProps();
  });
  on("key", () => (keyInput.value = key.get()));
  return [languages.line, theme.line, el("div", { class: "field" }, el("label", { for: "key", text: t("settings.key") }), keyInput, el("p", { class: "quiet", text: t("settings.key_hint") }))];
}

export function createSettings(root) {
  const effort = selectField("set-effort", t("settings.effort"), { "": t("settings.default"), ...Object.fromEntries(EFFORTS.map((name) => [name, t(`effort.${name}`)])) }, "", (value) => {
    current().effort = value;
    keepSettings();
  });
  fields.push({ show: () => (effort.select.value = current().effort) });
  const note = el("p", { class: "quiet" });
  problem = () => {
    const n = Object.keys(current().params).length;
    note.textContent = n ? t("settings.changed", { n }) : t("settings.unchanged");
    clear.hidden = !n;
  };
  const clear = el("button", { type: "button", text: t("settings.clear"), onclick: () => {
    Object.assign(current(), { params: structuredClone(NO_SETTINGS.params) });
    changed();
  } });
  fields.push({ show: problem });
  root.append(
    el("div", { class: "settings-head" }, el("h2", { text: t("settings.title") }), iconButton("close", t("page.close"), () => $("settings-toggle").click(), { id: "settings-close" })),
    ofChats(group(t("settings.instructions"), true, textField("system", 4), presets())),
    group(t("settings.sampling"), true, note, el("div", { class: "pairs" }, SAMPLING.map(numberField)), clear),
    group(t("settings.output"), false,
      el("div", { class: "pairs" }, OUTPUT.map(numberField)), textField("stop", 2), ofChats(effort.line),
      ofChats(textField("schema", 4, (text) => checkJson(text, isObject, "schema"))),
      ofChats(textField("tools", 4, (text) => checkJson(text, Array.isArray, "tools")))),
    group(t("settings.elsewhere"), false,
      ofChats(el("div", {}, el("p", { class: "quiet", text: t("settings.elsewhere_hint") }), elsewhere())),
      el("p", {}, el("a", { href: "docs", text: t("settings.docs") }))),
    group(t("settings.page"), true, ...pageSettings()),
  );
  const show = () => fields.forEach((field) => field.show());
  on("conversation", show);
  on("props", show);
  on("model", show);
  show();
}
