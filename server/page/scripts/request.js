// From a conversation to the body of a request, and to the same request in curl and Python.

import { branch } from "./conversation.js";

/** A fence that the text does not contain. */
function fenced({ name, text }) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map((match) => match[0].length));
  const fence = "`".repeat(longest + 1);
  return `${name}:\n${fence}\n${text}${text.endsWith("\n") ? "" : "\n"}${fence}`;
}

function messageOf(message) {
  const { role, content } = message;
  if (role === "tool") return { role, tool_call_id: message.call, content };
  if (role === "user") return { role, content: [...(message.attachments ?? []).map(fenced), content].filter(Boolean).join("\n\n") };
  if (!message.calls?.length) return { role, content };
  const calls = message.calls.map(({ id, name, arguments: text }) => ({ id, type: "function", function: { name, arguments: text } }));
  return { role, content: content || null, tool_calls: calls };
}

/** Only what the user changed is sent, so that the administrator's and the model's defaults hold. */
export function generationFields(settings) {
  const fields = { ...settings.params };
  const stops = settings.stop.split("\n").filter((line) => line !== "");
  if (stops.length) fields.stop = stops;
  return fields;
}

/** Throws on tools or a schema that are not JSON. */
export function chatBody(conversation, model, leaf = conversation.leaf) {
  const { settings } = conversation;
  const messages = branch(conversation, leaf).filter((message) => message.role !== "assistant" || message.content || message.calls?.length).map(messageOf);
  if (settings.system.trim()) messages.unshift({ role: "system", content: settings.system });
  const body = { model, messages, ...generationFields(settings) };
  if (settings.effort) body.reasoning_effort = settings.effort;
  if (settings.tools.trim()) body.tools = JSON.parse(settings.tools);
  if (settings.schema.trim()) {
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(settings.schema) } };
  }
  return body;
}

const root = () => new URL(".", location.href).href;

export function asCurl(body, keyed) {
  const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
  const key = keyed ? ' \\\n  -H "Authorization: Bearer $GGSERVE_API_KEY"' : "";
  return `curl ${root()}v1/chat/completions \\\n  -H 'Content-Type: application/json'${key} \\\n  -d '${json}'\n`;
}

// Fields that openai's client knows; the others go into extra_body.
const STANDARD = new Set(
  "model messages temperature top_p max_tokens seed stop presence_penalty frequency_penalty tools response_format reasoning_effort".split(" "),
);

function python(value, indent = "    ") {
  const inner = `${indent}    `;
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return value.length ? `[\n${value.map((item) => `${inner}${python(item, inner)},\n`).join("")}${indent}]` : "[]";
  if (typeof value === "object") {
    const entries = Object.entries(value);
    return entries.length ? `{\n${entries.map(([k, v]) => `${inner}${JSON.stringify(k)}: ${python(v, inner)},\n`).join("")}${indent}}` : "{}";
  }
  return JSON.stringify(value); // JSON's texts and numbers are Python's
}

export function asPython(body, keyed) {
  const own = Object.entries(body).filter(([name]) => STANDARD.has(name));
  const extra = Object.entries(body).filter(([name]) => !STANDARD.has(name));
  const lines = own.map(([name, value]) => `    ${name}=${python(value)},\n`);
  if (extra.length) lines.push(`    extra_body=${python(Object.fromEntries(extra))},\n`);
  const key = keyed ? 'os.environ["GGSERVE_API_KEY"]' : '"none"';
  return [
    ...(keyed ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(`${root()}v1`)}, api_key=${key})`,
    "response = client.chat.completions.create(",
    `${lines.join("")})`,
    "print(response.choices[0].message.content)",
    "",
  ].join("\n");
}
