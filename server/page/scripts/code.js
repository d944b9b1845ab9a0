// Code blocks: a bar with the language and a copy button, and colours.

import DOMPurify from "../vendor/dompurify/purify.es.mjs";
import { copy, el, icon } from "./dom.js";
import { t } from "./i18n.js";

const MAX_COLOURED = 100_000; // characters; more stays plain
const ONLY_SPANS = { ALLOWED_TAGS: ["span"], ALLOWED_ATTR: ["class"], RETURN_DOM_FRAGMENT: true };

let highlighter = null;

/** Colour a code element. The highlighter's HTML goes through the sanitizer as well. */
export async function colour(code, language) {
  if (code.textContent.length > MAX_COLOURED) return;
  highlighter ??= import("../vendor/highlight/highlight.min.js");
  const { default: hljs } = await highlighter;
  if (!hljs.getLanguage(language)) return;
  const html = hljs.highlight(code.textContent, { language, ignoreIllegals: true }).value;
  code.replaceChildren(DOMPurify.sanitize(html, ONLY_SPANS));
}

/** Dress the code blocks in `root`; colours come when a block is whole. */
export function finishCode(root, finished) {
  for (const pre of root.querySelectorAll("pre")) {
    const code = pre.querySelector("code");
    if (!code) continue;
    const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
    const button = el("button", { type: "button", class: "code-copy" }, icon("copy"), t("code.copy"));
    button.addEventListener("click", () => copy(code.textContent, button));
    const box = el("div", { class: "code" }, el("div", { class: "code-bar" }, el("span", { text: language || t("code.plain") }), button));
    pre.replaceWith(box);
    pre.tabIndex = 0; // can be scrolled by keyboard
    box.append(pre);
    if (finished && language) colour(code, language);
  }
}
