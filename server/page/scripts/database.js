// Conversations in IndexedDB. Where a browser refuses it (some private windows), they live as long as the page.

const memory = new Map();

function finished(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

const opened = (async () => {
  try {
    const request = indexedDB.open("ggserve", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
    return await finished(request);
  } catch {
    return null;
  }
})();

async function store(mode) {
  const database = await opened;
  return database?.transaction("conversations", mode).objectStore("conversations") ?? null;
}

export async function readAll() {
  const conversations = await store("readonly");
  return conversations ? finished(conversations.getAll()) : [...memory.values()];
}

export async function write(conversation) {
  const conversations = await store("readwrite");
  if (conversations) await finished(conversations.put(conversation));
  else memory.set(conversation.id, structuredClone(conversation));
}

export async function remove(id) {
  const conversations = await store("readwrite");
  if (conversations) await finished(conversations.delete(id));
  else memory.delete(id);
}
