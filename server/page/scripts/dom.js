// Elements, icons, and the small things that every view does.

import { t } from "./i18n.js";

const PATHS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M8 8h8v8H8z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "M5 12.5l4.5 4.5L19 7.5",
  again: "M19 12a7 7 0 1 1-2.1-5M19 4v4h-4",
  edit: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  trash: "M5 7h14M10 7V5h4v2M7 7l1 12h8l1-12M10.5 10.5v5M13.5 10.5v5",
  attach: "M19 11l-7.5 7.5a4 4 0 0 1-5.7-5.7L13 5.6a2.7 2.7 0 0 1 3.8 3.8l-7 7a1.3 1.3 0 0 1-1.9-1.9L14 8.4",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  close: "M6 6l12 12M18 6L6 18",
  code: "M9 8l-4 4 4 4M15 8l4 4-4 4",
  undo: "M8 5L4 9l4 4M4 9h10a5 5 0 0 1 0 10h-3",
};

/** An element. Properties: `on…` listeners, `text`, `dataset`; everything else is an attribute. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else if (name === "value") element.value = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
}

/** A button that is only an icon; its label is spoken, and shown while the pointer rests on it. */
export function iconButton(name, label, onclick, more = {}) {
  return el("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...more }, icon(name));
}

export const $ = (id) => document.getElementById(id);

/** Fill in the texts of what stands in index.html. */
export function translate(root) {
  for (const e of root.querySelectorAll("[data-t]")) e.textContent = t(e.dataset.t);
  for (const e of root.querySelectorAll("[data-t-label]")) {
    e.setAttribute("aria-label", t(e.dataset.tLabel));
    if (e.tagName === "BUTTON") e.title = t(e.dataset.tLabel);
  }
  for (const e of root.querySelectorAll("[data-icon]")) e.append(icon(e.dataset.icon));
}

/** Tell people who cannot see it. */
export function announce(text) {
  $("announcer").textContent = text;
}

/** A line at the bottom for some seconds, perhaps with an action such as undo. */
export function toast(text, action) {
  const line = el("div", { class: "toast" }, el("span", { text }));
  if (action) {
    const act = () => {
      line.remove();
      action.run();
    };
    line.append(el("button", { type: "button", text: action.label, onclick: act }));
  }
  $("toasts").append(line);
  setTimeout(() => line.remove(), action ? 8000 : 4000);
}

/** Copy, also where the page came over plain HTTP and the browser has no clipboard for it. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "hidden-text", value: text });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    button?.focus();
    if (!done) return toast(t("page.copy_failed"));
  }
  announce(t("page.copied"));
  if (!button) return toast(t("page.copied"));
  const old = [...button.childNodes];
  if (button.classList.contains("done")) return;
  button.classList.add("done");
  button.replaceChildren(icon("check"), ...(button.classList.contains("icon-button") ? [] : [t("page.copied")]));
  setTimeout(() => {
    button.classList.remove("done");
    button.replaceChildren(...old);
  }, 1500);
}

export function download(name, text, type = "application/json") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Let the user choose files. */
export function chooseFiles(accept, multiple) {
  return new Promise((resolve) => {
    const input = el("input", { type: "file", accept, multiple });
    input.addEventListener("change", () => resolve([...input.files]));
    input.addEventListener("cancel", () => resolve([]));
    input.click();
  });
}

/** Make a text area as high as its text; CSS bounds it. */
export function grow(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}
