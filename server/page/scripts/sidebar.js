// The list of conversations: open, rename, delete, export, import.

import { chooseFiles, download, el, iconButton, toast } from "./dom.js";
import { language, t } from "./i18n.js";
import { discard, exported, keep, library, open, start, takeIn } from "./library.js";
import { on } from "./store.js";

function rename(conversation, item) {
  const input = el("input", { value: conversation.title, "aria-label": t("sidebar.rename"), maxlength: 200 });
  const done = (event) => {
    if (event.type === "keydown" && event.key !== "Enter" && event.key !== "Escape") return;
    event.stopPropagation();
    input.removeEventListener("blur", done);
    if (event.key !== "Escape" && input.value.trim()) conversation.title = input.value.trim();
    input.remove();
    keep(conversation, { touch: false });
  };
  input.addEventListener("blur", done);
  input.addEventListener("keydown", done);
  item.replaceChildren(input);
  input.select();
}

function item(conversation, opened) {
  const current = conversation === library.open;
  const title = el("button", {
    type: "button",
    class: "title",
    text: conversation.title || t("sidebar.untitled"),
    "aria-current": current ? "true" : undefined,
    onclick: () => {
      open(conversation);
      opened();
    },
  });
  const line = el("li", { class: current ? "current" : "" }, title, el("span", { class: "item-actions" },
    iconButton("edit", t("sidebar.rename"), () => rename(conversation, line)),
    iconButton("download", t("sidebar.export_one"), () => download(fileName(conversation.title), exported([conversation]))),
    iconButton("trash", t("sidebar.delete"), () => discard(conversation))));
  return line;
}

function fileName(title) {
  const day = new Date().toISOString().slice(0, 10);
  return `${title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "ggserve"}-${day}.json`;
}

async function importFiles() {
  for (const file of await chooseFiles(".json,application/json", true)) {
    try {
      toast(t("sidebar.imported", { n: await takeIn(await file.text()) }));
    } catch {
      toast(t("sidebar.not_imported", { name: file.name }));
    }
  }
}

/** By day: today, the last week, then months. */
function group(conversation) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (conversation.updated >= midnight) return t("sidebar.today");
  if (conversation.updated >= midnight - 7 * 864e5) return t("sidebar.week");
  return new Intl.DateTimeFormat(language, { month: "long", year: "numeric" }).format(conversation.updated);
}

/** opened: called when a conversation was opened, so that a drawer can close. */
export function createSidebar(root, opened) {
  const list = el("div", { class: "conversations" });
  const begin = el("button", { type: "button", class: "new", id: "new" });
  begin.addEventListener("click", () => {
    start();
    opened();
  });
  begin.append(t("sidebar.new"));
  root.append(begin, list, el("div", { class: "sidebar-foot" },
    iconButton("upload", t("sidebar.import"), importFiles, { id: "import" }),
    iconButton("download", t("sidebar.export"), () => download(fileName(""), exported()), { id: "export" }),
    el("span", { class: "quiet", text: t("sidebar.where") })));
  const draw = () => {
    if (list.contains(document.activeElement) && document.activeElement.tagName === "INPUT") return; // being renamed
    const groups = Map.groupBy ? Map.groupBy(library.all, group) : new Map([["", library.all]]);
    list.replaceChildren(...[...groups].flatMap(([name, conversations]) => [
      el("h2", { text: name }),
      el("ul", {}, conversations.map((conversation) => item(conversation, opened))),
    ]));
    if (!library.all.length) list.append(el("p", { class: "quiet", text: t("sidebar.empty") }));
  };
  on("library", draw);
  on("conversation", draw);
  draw();
}
