// Models that do not write: embeddings with their similarities, or documents ranked by a query.

import { getJson } from "./api.js";
import { copy, el, svg } from "./dom.js";
import { number, t } from "./i18n.js";
import { on, server, use } from "./store.js";

const lines = (area) => area.value.split("\n").map((line) => line.trim()).filter(Boolean);

function cosine(a, b) {
  let dot = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa && bb ? dot / Math.sqrt(aa * bb) : 0;
}

/** A vector as a row of bars, the first 64 values. */
function bars(vector) {
  const shown = vector.slice(0, 64);
  const most = Math.max(...shown.map(Math.abs)) || 1;
  const rects = shown.map((value, i) => {
    const height = (Math.abs(value) / most) * 10;
    return svg("rect", { x: i * 4, y: value < 0 ? 10 : 10 - height, width: 3, height, class: value < 0 ? "minus" : "plus" });
  });
  return svg("svg", { viewBox: `0 0 ${shown.length * 4} 20`, class: "bars", role: "img", "aria-label": shown.slice(0, 4).map((v) => number(v, 3)).join("; ") }, ...rects);
}

function similarities(texts, vectors) {
  const head = el("tr", {}, el("td"), texts.map((_, i) => el("th", { scope: "col", text: String(i + 1) })));
  const rows = vectors.map((a, i) => el("tr", {}, el("th", { scope: "row", text: `${i + 1}  ${texts[i]}` }), vectors.map((b) => {
    const value = cosine(a, b);
    const cell = el("td", { text: number(value, 2) });
    cell.style.setProperty("--share", `${Math.round(Math.max(0, value) * 100)}%`);
    return cell;
  })));
  return el("div", { class: "wide", tabindex: 0 }, el("table", { class: "matrix" }, el("caption", { text: t("vectors.similarity") }), el("thead", {}, head), el("tbody", {}, rows)));
}

async function embed(texts, out) {
  const reply = await getJson("v1/embeddings", { body: { model: server.model, input: texts } });
  const vectors = reply.data.map((entry) => entry.embedding);
  const button = el("button", { type: "button", text: t("vectors.copy") });
  button.addEventListener("click", () => copy(JSON.stringify(vectors), button));
  out.replaceChildren(
    el("p", { class: "quiet", text: t("vectors.summary", { dimensions: vectors[0].length, tokens: reply.usage.prompt_tokens, n: texts.length }) }),
    ...(texts.length > 1 ? [similarities(texts, vectors)] : []),
    el("ol", { class: "vectors" }, vectors.map((vector, i) => el("li", {}, el("span", { text: texts[i] }), bars(vector)))),
    el("div", { class: "row" }, button),
  );
}

async function rank(query, documents, out) {
  const reply = await getJson("v1/rerank", { body: { model: server.model, query, documents } });
  const results = reply.results.toSorted((a, b) => b.relevance_score - a.relevance_score);
  const scores = results.map((result) => result.relevance_score);
  const least = Math.min(...scores), most = Math.max(...scores);
  out.replaceChildren(el("ol", { class: "ranks" }, results.map((result) => {
    const meter = el("span", { class: "meter" });
    meter.style.setProperty("--share", `${most > least ? Math.round(((result.relevance_score - least) / (most - least)) * 100) : 100}%`);
    return el("li", {}, el("span", { text: documents[result.index] }), meter, el("span", { class: "number", text: number(result.relevance_score, 3) }));
  })));
}

export function createVectors(root) {
  const title = el("h1");
  const about = el("p", { class: "quiet" });
  const query = el("input", { id: "query", value: t("vectors.query_example") });
  const queryField = el("div", { class: "field" }, el("label", { for: "query", text: t("vectors.query") }), query);
  const label = el("label", { for: "inputs" });
  const area = el("textarea", { id: "inputs", rows: 5, value: t("vectors.example") });
  const go = el("button", { type: "submit", class: "primary" });
  const wrong = el("p", { class: "wrong", role: "alert" });
  const out = el("div", { class: "result", role: "status" });
  const form = el("form", { class: "page column" }, title, about, queryField, el("div", { class: "field" }, label, area), el("div", { class: "row" }, go), wrong, out);
  root.append(form);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const texts = lines(area);
    if (!texts.length) return area.focus();
    go.disabled = true;
    wrong.textContent = "";
    try {
      await (use() === "ranking" ? rank(query.value, texts, out) : embed(texts, out));
    } catch (error) {
      wrong.textContent = error.message;
      out.replaceChildren();
    }
    go.disabled = false;
  });
  area.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.requestSubmit());

  const draw = () => {
    const ranking = use() === "ranking";
    title.textContent = t(ranking ? "vectors.ranking_title" : "vectors.title");
    about.textContent = t(ranking ? "vectors.ranking_about" : "vectors.about", { model: server.model ?? "" });
    label.textContent = t(ranking ? "vectors.documents" : "vectors.inputs");
    go.textContent = t(ranking ? "vectors.rank" : "vectors.embed");
    queryField.hidden = !ranking;
  };
  on("models", draw);
  on("model", () => {
    out.replaceChildren();
    draw();
  });
  draw();
}
