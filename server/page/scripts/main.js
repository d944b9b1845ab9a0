// The start: texts, conversations, then the views; and what belongs to the whole page.

import { onRefusal } from "./api.js";
import { createChat, focusInput, isRunning, stop } from "./chat.js";
import { $, el, toast, translate } from "./dom.js";
import { loadTexts, number, t } from "./i18n.js";
import { openLibrary, start } from "./library.js";
import { key, load, save } from "./local.js";
import { createModel } from "./model.js";
import { createMonitor } from "./monitor.js";
import { createSettings } from "./settings.js";
import { createSidebar } from "./sidebar.js";
import { choose, emit, loadProps, on, server, use, watch } from "./store.js";
import { createText } from "./text.js";
import { createVectors } from "./vectors.js";

const VIEWS = ["chat", "text", "vectors", "model", "server"];
const narrow = matchMedia("(max-width: 1000px)");
let view = null;

/** Views that make sense for the chosen model. */
function possible() {
  const first = { chat: ["chat", "text"], text: ["text"], embeddings: ["vectors"], ranking: ["vectors"] }[use()] ?? ["chat"];
  return [...first, "model", "server"];
}

function select(name) {
  view = name;
  for (const other of VIEWS) $(`view-${other}`).hidden = other !== name;
  for (const tab of $("tabs").children) {
    if (tab.dataset.view === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  document.body.dataset.view = name;
  emit("view");
}

function drawTabs() {
  const names = possible();
  const label = (name) => t(name === "vectors" ? `views.${use()}` : `views.${name}`);
  $("tabs").replaceChildren(...names.map((name) => el("button", { type: "button", text: label(name), dataset: { view: name }, onclick: () => {
    select(name);
    if (name === "chat") focusInput();
  } })));
  select(names.includes(view) ? view : names[0]);
}

function drawHealth() {
  const { status, progress } = server;
  const percent = progress === undefined ? "" : ` ${number(progress * 100)} %`;
  $("state").textContent = t(`state.${status}`) + percent;
  $("state").className = `state ${status === "ok" ? "ok" : ["failed", "unreachable", "stopping"].includes(status) ? "down" : "wait"}`;
}

/** The name, and where several are offered also what keeps a model from answering at once. */
function label(name, { state, progress }) {
  if (state === "ready" || Object.keys(server.models).length < 2) return name;
  return `${name} · ${t(`state.${state}`)}${state === "loading" ? ` ${number(progress * 100)} %` : ""}`;
}

function drawModels() {
  const names = Object.keys(server.models);
  $("model").replaceChildren(...names.map((name) => el("option", { value: name, text: label(name, server.models[name]) })));
  $("model").value = server.model ?? "";
  $("model").disabled = names.length < 2;
  document.title = server.model ? `${server.model} · ggserve` : "ggserve";
  drawTabs();
}

/** A column that is a drawer over the page where there is no room beside it. */
function drawer(name) {
  const panel = $(name);
  const button = $(`${name}-toggle`);
  const set = (open, keep = true) => {
    document.body.classList.toggle(`with-${name}`, open);
    panel.inert = !open;
    button.setAttribute("aria-expanded", String(open));
    if (keep && !narrow.matches) save(name, open);
    $("backdrop").hidden = !(narrow.matches && document.querySelector(".with-sidebar, .with-settings"));
  };
  const isOpen = () => document.body.classList.contains(`with-${name}`);
  button.addEventListener("click", () => {
    set(!isOpen());
    if (isOpen() && narrow.matches) panel.querySelector("button, input, textarea, select")?.focus();
    else if (narrow.matches) button.focus();
  });
  const fit = () => set(narrow.matches ? false : load(name, name === "sidebar" || innerWidth > 1250), false);
  narrow.addEventListener("change", fit);
  fit();
  return { close: () => narrow.matches && set(false), isOpen };
}

function keyBar() {
  const bar = $("key-bar");
  onRefusal.add(() => {
    $("key-wrong").textContent = key.get() ? t("key.wrong") : "";
    if (!bar.hidden) return;
    bar.hidden = false;
    $("key-ask").focus();
  });
  bar.addEventListener("submit", async (event) => {
    event.preventDefault();
    key.set($("key-ask").value.trim());
    emit("key");
    await loadProps();
    if (!server.props) return;
    bar.hidden = true;
    $("key-ask").value = "";
    focusInput();
  });
}

function shortcuts(drawers) {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const open = narrow.matches ? drawers.find((each) => each.isOpen()) : null;
      if (open) open.close();
      else if (isRunning()) stop();
      else return;
      event.preventDefault();
    } else if (event.altKey && !event.ctrlKey && !event.metaKey && event.code === "KeyN") {
      event.preventDefault();
      start();
    }
  });
}

async function main() {
  await loadTexts();
  translate(document.body);
  await openLibrary();
  const sidebar = drawer("sidebar");
  const settings = drawer("settings");
  $("backdrop").addEventListener("click", () => [sidebar, settings].forEach((each) => each.close()));
  createSidebar($("sidebar"), () => {
    sidebar.close();
    if (possible().includes("chat")) select("chat");
  });
  createSettings($("settings"));
  createChat($("view-chat"));
  createText($("view-text"));
  createVectors($("view-vectors"));
  createModel($("view-model"));
  createMonitor($("view-server"), () => view === "server");
  keyBar();
  shortcuts([sidebar, settings]);
  $("model").addEventListener("change", () => choose($("model").value));
  on("health", drawHealth);
  on("models", drawModels);
  on("model", drawModels);
  drawHealth();
  drawTabs();
  focusInput();
  watch();
}

main().catch((error) => toast(String(error)));
