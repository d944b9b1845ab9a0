// The server while it works: plots from /metrics, and its running requests.

import { getJson, request } from "./api.js";
import { el, iconButton, toast } from "./dom.js";
import { number, seconds, t } from "./i18n.js";
import { parse, quantile, rate, sum } from "./metrics.js";
import { Plot } from "./plot.js";
import { on } from "./store.js";

const EVERY_MS = 2000;
const SAMPLES = 90; // three minutes
const WINDOW = 15; // scrapes that a quantile looks back: half a minute

function duration(total) {
  const d = Math.floor(total / 86400), h = Math.floor((total % 86400) / 3600), m = Math.floor((total % 3600) / 60);
  return d ? t("monitor.days", { d, h }) : h ? t("monitor.hours", { h, m }) : t("monitor.minutes", { m });
}

/** The running requests as a table whose rows stay while they run, so that a click meets its button. */
class RequestTable {
  constructor(cancel) {
    this.cancel = cancel;
    this.rows = new Map(); // id → {row, cells}
    const head = ["model", "state", "prompt", "generated", "age"].map((name) => el("th", { scope: "col", text: t(`monitor.${name}`) }));
    this.body = el("tbody");
    this.table = el("div", { class: "wide", tabindex: 0 }, el("table", {}, el("thead", {}, el("tr", {}, head, el("td"))), this.body));
    this.idle = el("p", { class: "quiet", text: t("monitor.idle") });
    this.element = el("section", { class: "card requests" }, el("h2", { text: t("monitor.list") }), this.idle, this.table);
    this.update([]);
  }

  update(list) {
    this.idle.hidden = list.length > 0;
    this.table.hidden = list.length === 0;
    const ids = new Set(list.map((request) => request.id));
    for (const [id, { row }] of this.rows) {
      if (ids.has(id)) continue;
      row.remove();
      this.rows.delete(id);
    }
    for (const request of list) {
      if (!this.rows.has(request.id)) this.#add(request.id);
      const texts = [request.model, t(`requests.${request.state}`), number(request.n_prompt), number(request.n_generated), seconds(request.age_ms / 1000)];
      this.rows.get(request.id).cells.forEach((cell, i) => (cell.textContent = texts[i]));
    }
  }

  #add(id) {
    const cells = ["", "", "number", "number", "number"].map((name) => el("td", { class: name }));
    const row = el("tr", {}, cells, el("td", {}, iconButton("close", t("monitor.cancel"), () => this.cancel(id))));
    this.rows.set(id, { row, cells });
    this.body.append(row);
  }
}

/** isShown: whether to ask the server, which is also left alone while the page is hidden. */
export function createMonitor(root, isShown) {
  const tokens = new Plot(t("monitor.tokens"), [t("monitor.written"), t("monitor.read")], (v) => number(v, v < 10 ? 1 : 0), SAMPLES);
  const load = new Plot(t("monitor.requests"), [t("monitor.running"), t("monitor.waiting")], (v) => number(v), SAMPLES);
  const first = new Plot(t("monitor.first"), [t("monitor.median"), t("monitor.p95")], seconds, SAMPLES);
  const gap = new Plot(t("monitor.gap"), [t("monitor.median"), t("monitor.p95")], seconds, SAMPLES);
  const cells = new Plot(t("monitor.cells"), [t("monitor.used"), t("monitor.cached")], (v) => `${number(v, v < 10 ? 1 : 0)} %`, SAMPLES);
  const facts = el("p", { class: "quiet" });
  const wrong = el("p", { class: "wrong", role: "alert" });
  const table = new RequestTable((id) => cancel(id));
  root.append(el("div", { class: "page column broad" }, el("h1", { text: t("views.server") }), facts, wrong,
    el("div", { class: "plots" }, [tokens, load, first, gap, cells].map((plot) => plot.element)), table.element));

  const history = []; // {at, samples}
  let timer = null;
  let asking = false;

  const cancel = async (id) => {
    try {
      await request(`v1/requests/${encodeURIComponent(id)}`, { method: "DELETE" });
    } catch (error) {
      toast(error.message);
    }
    ask();
  };

  async function scrape() {
    const response = await request("metrics");
    const samples = parse(await response.text());
    const now = { at: performance.now() / 1000, samples };
    const last = history.at(-1);
    history.push(now);
    if (history.length > WINDOW) history.shift();
    const started = Number(response.headers.get("process-start-time-unix"));
    const answered = sum(samples.filter(({ labels }) => labels.route?.startsWith("/v1/")), "ggserve_requests_total");
    facts.textContent = [started ? t("monitor.up", { time: duration(Date.now() / 1000 - started) }) : "", t("monitor.answered", { n: answered }),
      t("monitor.restarts", { n: sum(samples, "ggserve_engine_restarts_total") })].filter(Boolean).join(" · ");
    load.push(sum(samples, "ggserve_running"), sum(samples, "ggserve_waiting"));
    const total = sum(samples, "ggserve_cells_total");
    cells.push(...["ggserve_cells_used", "ggserve_cells_cached"].map((name) => (total ? (100 * sum(samples, name)) / total : null)));
    if (!last) return;
    const passed = now.at - last.at;
    // Chunks are counted as they are made: token_gap counts a token when it comes, predicted_tokens when its request ends.
    const written = rate(last.samples, samples, "ggserve_token_gap_seconds_count", passed) + rate(last.samples, samples, "ggserve_first_token_seconds_count", passed);
    tokens.push(written, rate(last.samples, samples, "ggserve_prompt_tokens_total", passed));
    const [oldest] = history;
    for (const [plot, name] of [[first, "ggserve_first_token_seconds"], [gap, "ggserve_token_gap_seconds"]]) {
      plot.push(quantile(oldest.samples, samples, name, 0.5), quantile(oldest.samples, samples, name, 0.95));
    }
  }

  async function ask() {
    if (asking || document.hidden) return;
    asking = true;
    wrong.textContent = "";
    try {
      await scrape();
    } catch (error) {
      wrong.textContent = error.message;
    }
    try {
      const { data } = await getJson("v1/requests");
      table.update(data);
    } catch (error) {
      wrong.textContent = error.message;
    }
    asking = false;
  }

  on("view", () => {
    clearInterval(timer);
    timer = null;
    if (!isShown()) return;
    ask();
    timer = setInterval(ask, EVERY_MS);
  });
}
