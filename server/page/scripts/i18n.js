// Texts by key from texts/LANGUAGE.json: another language is one more file and one more name here.

import { load } from "./local.js";

export const LANGUAGES = { en: "English", de: "Deutsch" };

let texts = {};
export let language = "en";

function wanted() {
  const choice = load("language", null);
  if (choice in LANGUAGES) return choice;
  return (navigator.languages ?? []).map((tag) => tag.slice(0, 2)).find((tag) => tag in LANGUAGES) ?? "en";
}

/** Load the texts of the chosen language, else the browser's. */
export async function loadTexts() {
  language = wanted();
  const response = await fetch(`page/texts/${language}.json`);
  if (!response.ok) throw new Error(`texts: status ${response.status}`);
  texts = await response.json();
  document.documentElement.lang = language;
}

/** The text of a key; `{name}` stands for a value. With `n` there may be texts for KEY.one and KEY.other. */
export function t(key, values = {}) {
  const form = values.n === undefined ? undefined : texts[`${key}.${new Intl.PluralRules(language).select(values.n)}`];
  const text = form ?? texts[key] ?? texts[`${key}.other`] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => {
    const value = values[name];
    return value === undefined ? whole : typeof value === "number" ? number(value) : value;
  });
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

/** 1536 MiB as 1.5 GiB. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (value >= 1024 && i < units.length - 1) {
    value /= 1024;
    i++;
  }
  return `${number(value, i && value < 100 ? 1 : 0)} ${units[i]}`;
}

/** 134515008 as 134.5 M. */
export function compact(value) {
  return new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function seconds(value) {
  return value < 1 ? `${number(value * 1000)} ms` : `${number(value, value < 10 ? 1 : 0)} s`;
}
