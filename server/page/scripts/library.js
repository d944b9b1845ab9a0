// The conversations of this browser: which one is open, what is stored.

import { exportText, importText, newConversation, settingsFrom } from "./conversation.js";
import * as database from "./database.js";
import { toast } from "./dom.js";
import { t } from "./i18n.js";
import { load, save } from "./local.js";
import { emit } from "./store.js";

export const library = {
  all: [], // newest first
  open: null, // may be a new one that is not in `all`, since it has no message
};

const sort = () => library.all.sort((a, b) => b.updated - a.updated);

export async function openLibrary() {
  library.all = await database.readAll().catch(() => []);
  sort();
  const last = load("open", null);
  library.open = library.all.find((conversation) => conversation.id === last) ?? newConversation(lastSettings());
}

const lastSettings = () => settingsFrom(load("settings", null));

/** Read again what is stored: of two tabs, the one that comes to the front shows what the other wrote. */
export async function refresh() {
  const known = new Set(library.all);
  const all = await database.readAll().catch(() => null);
  if (!all) return;
  const { open: current } = library;
  const at = all.findIndex((conversation) => conversation.id === current.id);
  const stored = all[at];
  if (stored && stored.updated <= current.updated) all[at] = current; // as it is on the page
  else if (!stored && !known.has(current) && current.messages.length) all.push(current); // begun meanwhile
  library.all = all;
  sort();
  if (stored && stored.updated > current.updated) open(stored);
  else if (!stored && known.has(current)) start(); // deleted in the other tab
  emit("library");
}

export function open(conversation) {
  library.open = conversation;
  save("open", conversation.id);
  emit("conversation");
}

export function start() {
  open(newConversation(lastSettings()));
}

/** Store what is open (or another one) once it holds a message. */
export async function keep(conversation = library.open, { touch = true } = {}) {
  if (!conversation.messages.length) return;
  if (touch) conversation.updated = Date.now();
  if (!library.all.includes(conversation)) {
    library.all.push(conversation);
    save("open", conversation.id);
  }
  sort();
  emit("library");
  try {
    await database.write(conversation);
  } catch (error) {
    toast(t("error.storage", { reason: error.message }));
  }
}

/** The settings of the open conversation changed; the next new one begins with them. */
export function keepSettings() {
  save("settings", library.open.settings);
  keep(library.open, { touch: false });
}

export async function discard(conversation) {
  library.all = library.all.filter((other) => other !== conversation);
  await database.remove(conversation.id);
  if (library.open === conversation) start();
  emit("library");
  toast(t("sidebar.deleted", { title: conversation.title }), {
    label: t("page.undo"),
    run: () => {
      keep(conversation, { touch: false });
      open(conversation);
    },
  });
}

export const exported = (conversations = library.all) => exportText(conversations);

/** Add the conversations of an exported file; how many. Throws if it is not one. */
export async function takeIn(text) {
  const conversations = importText(text);
  library.all.push(...conversations);
  for (const conversation of conversations) await database.write(conversation);
  sort();
  if (conversations.length) open(conversations[0]);
  emit("library");
  return conversations.length;
}
