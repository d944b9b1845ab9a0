// Small values that the browser keeps. A browser that refuses storage forgets them at the end.

const memory = new Map();

export function load(name, otherwise) {
  try {
    const text = localStorage.getItem(`ggserve.${name}`);
    return text === null ? memory.get(name) ?? otherwise : JSON.parse(text);
  } catch {
    return memory.get(name) ?? otherwise;
  }
}

export function save(name, value) {
  memory.set(name, value);
  try {
    localStorage.setItem(`ggserve.${name}`, JSON.stringify(value));
  } catch { /* full or off */ }
}

/** The API key lives as long as the tab. */
export const key = {
  get() {
    try {
      return sessionStorage.getItem("ggserve.key") ?? "";
    } catch {
      return memory.get("key") ?? "";
    }
  },
  set(value) {
    memory.set("key", value);
    try {
      sessionStorage.setItem("ggserve.key", value);
    } catch { /* only in memory */ }
  },
};
