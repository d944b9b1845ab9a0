// Requests to the server: the key, errors in words, event streams. Addresses are relative, for proxies with a prefix.

import { t } from "./i18n.js";
import { key } from "./local.js";

class ApiError extends Error {
  constructor(status, message, code) {
    super(message);
    Object.assign(this, { name: "ApiError", status, code });
  }
}

/** Listeners are told when the server refuses the key, or its absence. */
export const onRefusal = new Set();

export async function request(path, { body, method = body === undefined ? "GET" : "POST", signal } = {}) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      signal,
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, t("error.unreachable"));
  }
  if (!response.ok && path !== "health") {
    const failure = (await response.json().catch(() => null))?.error;
    if (response.status === 401) for (const listener of onRefusal) listener();
    throw new ApiError(response.status, failure?.message ?? t("error.status", { status: response.status }), failure?.code);
  }
  return response;
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

/** The data of each event of a stream. */
export async function* stream(path, body, signal) {
  const response = await request(path, { body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let done = false;
  while (!done) {
    const piece = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, t("error.broken"));
    });
    done = piece.done;
    const lines = (rest + (piece.value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines) {
      const data = line.startsWith("data: ") ? line.slice(6).trim() : "";
      if (data === "[DONE]") return;
      if (!data) continue;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(0, event.error.message, event.error.code);
      yield event;
    }
  }
  throw new ApiError(0, t("error.broken"));
}
