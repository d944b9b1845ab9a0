// A conversation is a tree: another answer or an edited question is a sibling, and `leaf` says which branch is shown.

/** Random, also where crypto.randomUUID is missing: on pages that came over plain HTTP. */
function newId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newConversation(settings) {
  const now = Date.now();
  return { id: newId(), title: "", created: now, updated: now, settings: structuredClone(settings), messages: [], leaf: null };
}

function find(conversation, id) {
  return conversation.messages.find((message) => message.id === id) ?? null;
}

/** The messages from the first to `leaf`. */
export function branch(conversation, leaf = conversation.leaf) {
  const result = [];
  for (let message = find(conversation, leaf); message; message = find(conversation, message.parent)) result.unshift(message);
  return result;
}

/** Add a message below `parent` and show it. */
export function add(conversation, parent, message) {
  const added = { id: newId(), parent, created: Date.now(), ...message };
  conversation.messages.push(added);
  conversation.leaf = added.id;
  if (!conversation.title && added.role === "user") conversation.title = titleOf(added);
  return conversation.messages.at(-1);
}

function titleOf(message) {
  const text = message.content.replace(/\s+/g, " ").trim() || message.attachments?.[0]?.name || "";
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

export function siblings(conversation, message) {
  return conversation.messages.filter((other) => other.parent === message.parent);
}

/** Show the branch through a message: its newest descendants. */
export function show(conversation, message) {
  let leaf = message.id;
  for (let child; (child = conversation.messages.findLast((other) => other.parent === leaf)); ) leaf = child.id;
  conversation.leaf = leaf;
}

/** Remove a message and what follows it; its newest sibling is shown, else its parent. */
export function cut(conversation, message) {
  const gone = new Set([message.id]);
  for (const other of conversation.messages) if (gone.has(other.parent)) gone.add(other.id);
  conversation.messages = conversation.messages.filter((other) => !gone.has(other.id));
  const sibling = conversation.messages.findLast((other) => other.parent === message.parent);
  if (sibling) show(conversation, sibling);
  else conversation.leaf = message.parent;
}

const FORMAT = "ggserve-conversations";
const ROLES = ["user", "assistant", "tool"];

export function exportText(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
}

/** Read an exported file. Throws an Error that says what is wrong; nothing of a file is trusted. */
export function importText(text) {
  const file = JSON.parse(text);
  if (file?.format !== FORMAT || file.version !== 1 || !Array.isArray(file.conversations)) throw new Error("format");
  return file.conversations.map(imported);
}

function check(condition) {
  if (!condition) throw new Error("format");
}

const isText = (value) => typeof value === "string";
export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

function imported(source) {
  check(isObject(source) && isText(source.title) && Array.isArray(source.messages));
  const seen = new Set([null]);
  const messages = source.messages.map((message) => {
    check(isObject(message) && isText(message.id) && ROLES.includes(message.role) && isText(message.content));
    check(seen.has(message.parent) && !seen.has(message.id)); // a parent stands before its children: no circles
    seen.add(message.id);
    const kept = { id: message.id, parent: message.parent, role: message.role, content: message.content };
    for (const name of ["reasoning", "error", "finish", "model", "call", "name"]) if (isText(message[name])) kept[name] = message[name];
    for (const name of ["created", "thinkingMs", "firstMs"]) if (Number.isFinite(message[name])) kept[name] = message[name];
    if (isObject(message.timings)) kept.timings = Object.fromEntries(Object.entries(message.timings).filter(([, v]) => Number.isFinite(v)));
    if (Array.isArray(message.warnings)) kept.warnings = message.warnings.filter(isText);
    if (Array.isArray(message.attachments)) {
      check(message.attachments.every((file) => isText(file?.name) && isText(file.text)));
      kept.attachments = message.attachments.map(({ name, text }) => ({ name, text }));
    }
    if (Array.isArray(message.calls)) {
      check(message.calls.every((call) => isText(call?.id) && isText(call.name) && isText(call.arguments)));
      kept.calls = message.calls.map(({ id, name, arguments: text }) => ({ id, name, arguments: text }));
    }
    return kept;
  });
  const last = messages.at(-1)?.id ?? null;
  return {
    id: newId(),
    title: source.title.slice(0, 200),
    created: Number.isFinite(source.created) ? source.created : Date.now(),
    updated: Number.isFinite(source.updated) ? source.updated : Date.now(),
    settings: settingsFrom(source.settings),
    messages,
    leaf: source.leaf !== null && seen.has(source.leaf) ? source.leaf : last,
  };
}

/** Numbers of a request: name, least, most, step. */
export const SAMPLING = [
  ["temperature", 0, 5, 0.05],
  ["top_p", 0, 1, 0.01],
  ["top_k", 0, undefined, 1],
  ["min_p", 0, 1, 0.01],
  ["repeat_penalty", 0.1, 3, 0.01],
  ["presence_penalty", -2, 2, 0.1],
  ["frequency_penalty", -2, 2, 0.1],
  ["typical_p", 0, 1, 0.01],
  ["seed", 0, 4294967294, 1],
];
export const OUTPUT = [
  ["max_tokens", 1, undefined, 1],
  ["batch_size", 1, undefined, 1],
];

export const NO_SETTINGS = { system: "", params: {}, stop: "", schema: "", tools: "", effort: "" };

/** Settings out of storage or a file: the known names with values of the right kind. */
export function settingsFrom(source) {
  const settings = structuredClone(NO_SETTINGS);
  if (!isObject(source)) return settings;
  for (const name of ["system", "stop", "schema", "tools", "effort"]) if (isText(source[name])) settings[name] = source[name];
  if (isObject(source.params)) {
    for (const [name] of [...SAMPLING, ...OUTPUT]) if (Number.isFinite(source.params[name])) settings.params[name] = source.params[name];
  }
  return settings;
}
