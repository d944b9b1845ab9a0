// A plot of the last minutes: one or two lines in an SVG that stretches with its box.

import { el, svg } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 80;

/** A round number at or above the value: 1, 2, 5, 10, … */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export class Plot {
  /** series: their names; format: of the figures; length: samples from edge to edge. */
  constructor(title, series, format, length) {
    this.format = format;
    this.length = length;
    this.samples = series.map(() => []);
    this.lines = series.map((_, i) => svg("path", { class: `line line-${i}`, "vector-effect": "non-scaling-stroke" }));
    this.area = svg("path", { class: "area" });
    this.scale = el("span", { class: "scale" });
    this.image = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": title }, this.area, ...this.lines);
    this.now = series.map((name, i) => el("span", { class: `now now-${i}` }, el("b"), name ? ` ${name}` : ""));
    this.title = title;
    this.element = el("section", { class: "card plot" }, el("h2", { text: title }), el("div", { class: "plot-now" }, this.now), el("div", { class: "plot-box" }, this.image, this.scale));
  }

  /** Add a sample of each series; null: nothing is known. */
  push(...values) {
    values.forEach((value, i) => {
      const samples = this.samples[i];
      samples.push(value);
      if (samples.length > this.length) samples.shift();
      this.now[i].firstChild.textContent = value === null ? "–" : this.format(value);
    });
    const most = ceiling(Math.max(0, ...this.samples.flat().filter((value) => value !== null)));
    this.scale.textContent = this.format(most);
    this.lines.forEach((line, i) => line.setAttribute("d", this.#path(this.samples[i], most)));
    const [first] = this.samples;
    const path = this.#path(first.map((value) => value ?? 0), most);
    this.area.setAttribute("d", `${path}L${WIDTH} ${HEIGHT}L${this.#x(0, first.length)} ${HEIGHT}Z`);
    this.image.setAttribute("aria-label", `${this.title}: ${this.now.map((line) => line.textContent).join(", ")}`);
  }

  #x(i, count) {
    return WIDTH - ((count - 1 - i) / (this.length - 1)) * WIDTH;
  }

  #path(samples, most) {
    let path = "";
    let pen = "M";
    samples.forEach((value, i) => {
      if (value === null) {
        pen = "M";
        return;
      }
      path += `${pen}${this.#x(i, samples.length).toFixed(1)} ${(HEIGHT - 1 - (value / most) * (HEIGHT - 4)).toFixed(1)}`;
      pen = "L";
    });
    return path || `M0 ${HEIGHT}`;
  }
}
