// Markdown to nodes. What a model wrote is only ever shown: HTML in it is text, images are links, and the
// sanitizer lets through nothing but the elements that Markdown has.

import DOMPurify from "../vendor/dompurify/purify.es.mjs";
import { Marked } from "../vendor/marked/marked.esm.js";
import { finishCode } from "./code.js";

const ALLOWED = {
  ALLOWED_TAGS: [
    ..."p br hr h1 h2 h3 h4 h5 h6 ul ol li blockquote pre code em strong del a sub sup kbd b i u".split(" "),
    ..."table thead tbody tr th td span".split(" "),
  ],
  ALLOWED_ATTR: ["href", "title", "class", "align", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const HARMLESS = /^<\/?(?:br|sub|sup|kbd|b|i|u)\s*\/?>$/i;

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

const escape = (text) => text.replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);
const mathHtml = (text, kind) => `<code class="math ${kind}">${escape(text)}</code>`;

const BLOCK_MATH = /^(?:\$\$([^$]+?)\$\$|\\\[([\s\S]+?)\\\])[ \t]*(?:\n|$)/;
// A dollar is mathematics only where no space follows it, none precedes the second, and no digit follows that.
const INLINE_MATH = /^(?:\$\$([^$\n]+?)\$\$|\$(?!\s)((?:\\.|[^$\n\\])+?)(?<!\s)\$(?!\d)|\\\(([\s\S]+?)\\\)|\\\[([\s\S]+?)\\\])/;

const math = [
  {
    name: "blockMath",
    level: "block",
    start: (source) => source.match(/(?:^|\n)(?:\$\$|\\\[)/)?.index,
    tokenizer(source) {
      const match = BLOCK_MATH.exec(source);
      return match ? { type: "blockMath", raw: match[0], text: (match[1] ?? match[2]).trim() } : undefined;
    },
    renderer: (token) => `<p>${mathHtml(token.text, "block")}</p>`,
  },
  {
    name: "inlineMath",
    level: "inline",
    start: (source) => source.match(/\$|\\\(|\\\[/)?.index,
    tokenizer(source) {
      const match = INLINE_MATH.exec(source);
      if (!match) return undefined;
      const kind = match[1] !== undefined || match[4] !== undefined ? "block" : "inline";
      return { type: "inlineMath", raw: match[0], kind, text: (match[1] ?? match[2] ?? match[3] ?? match[4]).trim() };
    },
    renderer: (token) => mathHtml(token.text, token.kind),
  },
];

const marked = new Marked({
  gfm: true,
  breaks: true, // models mean the line breaks that they write
  extensions: math,
  renderer: {
    html: ({ text }) => (HARMLESS.test(text.trim()) ? text : escape(text)),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code({ text, lang }) {
      const name = /^[\w+#.-]{1,30}/.exec(lang ?? "")?.[0];
      return `<pre><code${name ? ` class="language-${escape(name)}"` : ""}>${escape(text)}</code></pre>`;
    },
  },
});

const render = (tokens) => DOMPurify.sanitize(marked.parser(tokens), ALLOWED);

let katex = null;

async function finishMath(root) {
  const places = root.querySelectorAll("code.math");
  if (!places.length) return;
  katex ??= import("../vendor/katex/katex.min.js").then(() => globalThis.katex);
  const { render: draw } = await katex;
  for (const place of places) {
    const span = document.createElement("span");
    const displayMode = place.classList.contains("block");
    try {
      // trust: false (no links, no HTML), and bounds for macros and sizes.
      draw(place.textContent, span, { displayMode, throwOnError: false, trust: false, maxSize: 20, maxExpand: 500 });
      span.className = displayMode ? "math-block" : "math-inline";
      if (displayMode) span.tabIndex = 0;
      place.replaceWith(span);
    } catch { /* what is not TeX stays as it is */ }
  }
}

/** Shows a growing text: blocks that did not change keep their nodes, so that selections and scroll positions stay. */
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.blocks = []; // {raw, element}
  }

  update(text, done) {
    let tokens;
    try {
      tokens = marked.lexer(text);
    } catch { // nested too deeply
      tokens = [{ type: "space", raw: text }];
    }
    tokens = tokens.filter((token) => token.type !== "space" || tokens.length === 1);
    tokens.forEach((token, i) => {
      const finished = done || i < tokens.length - 1;
      const old = this.blocks[i];
      if (old?.raw === token.raw && old.finished === finished) return;
      const element = document.createElement("div");
      element.className = "block";
      try {
        if (token.type === "space") element.textContent = token.raw.trim() ? token.raw : "";
        else element.append(render([token]));
      } catch {
        element.textContent = token.raw;
      }
      for (const table of element.querySelectorAll("table")) table.tabIndex = 0; // wide ones scroll, also by keyboard
      finishCode(element, finished);
      if (finished) finishMath(element);
      if (old) old.element.replaceWith(element);
      else this.root.append(element);
      this.blocks[i] = { raw: token.raw, element, finished };
    });
    for (const { element } of this.blocks.splice(tokens.length)) element.remove();
  }
}
