// What the views share: the served models, the chosen one, its defaults.

import { getJson, request } from "./api.js";
import { load, save } from "./local.js";

const events = new EventTarget();

export function emit(name) {
  events.dispatchEvent(new Event(name));
}

export function on(name, listener) {
  events.addEventListener(name, listener);
}

export const server = {
  status: "connecting",
  progress: undefined,
  models: {}, // name → what /health says of it
  model: null, // the chosen name
  props: null, // /props of the chosen model, null while unknown
};

export const use = () => server.models[server.model]?.use ?? null;

export function choose(model) {
  server.model = model;
  server.props = null;
  save("model", model);
  emit("model");
  return loadProps();
}

export async function loadProps() {
  const { model } = server;
  if (!model) return;
  try {
    const props = await getJson(`props?model=${encodeURIComponent(model)}`);
    if (server.model === model) server.props = props;
  } catch { /* without a key, or while it loads, they stay unknown */ }
  emit("props");
}

let timer;

/** Ask /health now. */
export function refresh() {
  clearTimeout(timer);
  return watch();
}

/** Ask /health again and again: often while something is not ready. */
export async function watch() {
  let wait = 10000;
  try {
    const health = await (await request("health")).json();
    const before = JSON.stringify([server.status, server.models]);
    Object.assign(server, { status: health.status, progress: health.progress, models: health.models });
    const names = Object.keys(health.models);
    if (!names.includes(server.model)) {
      const last = load("model", null);
      server.model = names.includes(last) ? last : names[0];
      server.props = null;
      emit("model");
    }
    if (before !== JSON.stringify([server.status, server.models])) emit("models");
    if (!server.props && health.models[server.model]?.state === "ready") await loadProps();
    if (health.status !== "ok" || health.models[server.model]?.state !== "ready") wait = 1000;
  } catch {
    server.status = "unreachable";
    wait = 2000;
  }
  emit("health");
  clearTimeout(timer);
  timer = setTimeout(watch, wait);
}
