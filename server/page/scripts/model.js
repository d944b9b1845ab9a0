// What the model is, where its layers run, and what it takes.

import { getJson } from "./api.js";
import { el, toast } from "./dom.js";
import { bytes, compact, number, t } from "./i18n.js";
import { on, refresh, server } from "./store.js";

function facts(entries) {
  return el("dl", { class: "facts" }, entries.filter(([, value]) => value !== undefined && value !== null && value !== "")
    .map(([name, value]) => el("div", {}, el("dt", { text: t(`model.${name}`) }), el("dd", { text: value }))));
}

/** Layers in order, as one strip coloured by device. */
function layers(placement) {
  const devices = [...new Set(placement)];
  const colour = (device) => `device device-${devices.indexOf(device) % 6}`;
  const last = placement.length - 1;
  const name = (i) => (i === last ? t("model.output") : t("model.layer", { i: String(i) }));
  const counts = devices.map((device) => [device, placement.filter((other) => other === device).length]);
  return [
    el("div", { class: "strip", role: "img", "aria-label": counts.map(([device, n]) => `${device}: ${n}`).join(", ") },
      placement.map((device, i) => el("span", { class: colour(device), title: `${name(i)}: ${device}` }))),
    el("ul", { class: "legend" }, counts.map(([device, n]) => el("li", {}, el("span", { class: colour(device) }), `${device} · ${t("model.parts", { n })}`))),
  ];
}

function memory(info) {
  const compute = Object.values(info.compute_bytes ?? {}).reduce((sum, n) => sum + n, 0);
  const parts = [["weights", info.weight_bytes ?? info.size_bytes ?? 0], ["cache", info.kv_bytes ?? 0], ["compute", compute]].filter(([, n]) => n > 0);
  const total = parts.reduce((sum, [, n]) => sum + n, 0);
  const segments = parts.map(([, n], i) => {
    const segment = el("span", { class: `device device-${i}` });
    segment.style.setProperty("--share", `${Math.max(1, (n / total) * 100)}%`);
    return segment;
  });
  return [
    el("div", { class: "memory", role: "img", "aria-label": bytes(total) }, segments),
    el("ul", { class: "legend" }, parts.map(([name, n], i) => el("li", {}, el("span", { class: `device device-${i}` }), `${t(`model.${name}`)} · ${bytes(n)}`)),
      el("li", { class: "total", text: t("model.total", { size: bytes(total) }) })),
  ];
}

/** Loads or unloads the model, where the server has others. */
function actions(name, { state, progress }) {
  if (Object.keys(server.models).length < 2) return [];
  if (state === "loading") return [el("progress", { max: 1, value: progress, "aria-label": t("state.loading") })];
  const action = { ready: "unload", unloaded: "load", failed: "load" }[state];
  if (!action) return [];
  const run = () => getJson(`v1/models/${action}`, { body: { model: name } }).then(refresh, (error) => toast(error.message));
  return [el("button", { type: "button", id: "model-action", text: t(`model.${action}`), onclick: run })];
}

const section = (title, ...children) => el("section", { class: "card" }, el("h2", { text: title }), ...children);
const folded = (title, text) => el("details", { class: "card" }, el("summary", { text: title }), el("pre", { tabindex: 0, text }));

export function createModel(root) {
  const page = el("div", { class: "page column" });
  root.append(page);
  const draw = () => {
    const info = server.models[server.model];
    if (!info) return page.replaceChildren(el("p", { class: "quiet", text: t("model.none") }));
    const { props } = server;
    const parts = [
      el("h1", { text: server.model }),
      el("p", { class: "quiet", text: t(`model.use_${info.use ?? (info.state === "loading" ? "none" : "unloaded")}`) }),
      ...actions(server.model, info),
      section(t("model.about"), facts([
        ["architecture", info.architecture],
        ["parameters", info.n_params && compact(info.n_params)],
        ["size", info.size_bytes && bytes(info.size_bytes)],
        ["layers", info.n_layer && number(info.n_layer)],
        ["width", info.n_embd && number(info.n_embd)],
        ["vocabulary", info.n_vocab && number(info.n_vocab)],
        ["file", props?.model_path],
        ["state", t(`state.${info.state === "ready" ? "ok" : info.state}`)],
      ])),
      section(t("model.running"), facts([
        ["context", info.n_ctx && t("model.tokens", { n: info.n_ctx })],
        ["trained", info.n_ctx_train && t("model.tokens", { n: info.n_ctx_train })],
        ["parallel", info.parallel && number(info.parallel)],
        ["batch", props && t("model.tokens", { n: props.max_batch_size })],
        ["cells", info.kv_cells && number(info.kv_cells)],
        ["kv_type", info.kv_type],
        ["attention", [...new Set(info.attention ?? [])].join(", ")],
        ["threads", info.n_threads && number(info.n_threads)],
      ])),
    ];
    if (info.placement?.length) parts.push(section(t("model.devices"), ...layers(info.placement), ...(info.notes ?? []).map((text) => el("p", { class: "quiet", text }))));
    if (info.size_bytes) parts.push(section(t("model.memory"), ...memory(info)));
    if (info.plan) parts.push(folded(t("model.plan"), info.plan));
    if (props?.chat_template) parts.push(folded(t("model.template"), props.chat_template));
    page.replaceChildren(...parts);
  };
  on("models", draw);
  on("model", draw);
  on("props", draw);
  draw();
}
