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

/** Apply a change, which is stored also if the page closes at once. */
async function change(apply, inMemory) {
  const transaction = (await opened)?.transaction("conversations", "readwrite");
  if (!transaction) return inMemory();
  const stored = new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = () => reject(transaction.error);
  });
  apply(transaction.objectStore("conversations"));
  transaction.commit(); // else it waits for an event of this page, and a page that closes aborts it
  await stored;
}

export async function readAll() {
  const conversations = (await opened)?.transaction("conversations").objectStore("conversations");
  return conversations ? finished(conversations.getAll()) : [...memory.values()];
}

export const write = (conversation) =>
  change((stored) => stored.put(conversation), () => memory.set(conversation.id, structuredClone(conversation)));

export const remove = (id) => change((stored) => stored.delete(id), () => memory.delete(id));
