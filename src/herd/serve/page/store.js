// Conversations in the browser's IndexedDB, one record each. Where that is off (some private windows) they live in
// memory and `kept` is false. An answer under way is also put aside in localStorage when the page is left, because
// writing to IndexedDB cannot be waited for then.

const ASIDE = "herd.aside";

export class Store {
  kept = true;
  #database = null;
  #memory = new Map();
  #queue = Promise.resolve();
  #channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("herd") : null;

  static async open() {
    const store = new Store();
    try {
      const request = indexedDB.open("herd", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
      store.#database = await done(request);
    } catch {
      store.kept = false;
    }
    return store;
  }

  /** Every conversation, the one spoken in last first. */
  async all() {
    const stored = this.#database ? await done(this.#objects("readonly").getAll()) : [...this.#memory.values()];
    const aside = takeAside();
    const found = aside ? [...stored.filter(({ id }) => id !== aside.id), aside] : stored;
    if (aside) await this.save(aside).catch(() => {});
    return found.sort((a, b) => b.updated - a.updated);
  }

  async get(id) {
    return this.#database ? await done(this.#objects("readonly").get(id)) : this.#memory.get(id);
  }

  /** Write one. In the order of the calls; rejects when the browser has no room. */
  save(conversation) {
    const copy = structuredClone(conversation);
    const saved = this.#queue.then(() => this.#write("put", copy, copy.id));
    this.#queue = saved.catch(() => {});
    return saved;
  }

  remove(id) {
    const removed = this.#queue.then(() => this.#write("delete", id, id));
    this.#queue = removed.catch(() => {});
    return removed;
  }

  /** Keep one when the page is being left. */
  putAside(conversation) {
    try {
      localStorage.setItem(ASIDE, JSON.stringify(conversation));
    } catch {
      // no room: what was saved last stays
    }
  }

  forgetAside() {
    takeAside();
  }

  /** `heard(id)` when another window of this page saved or removed a conversation. */
  onElsewhere(heard) {
    if (this.#channel) this.#channel.onmessage = ({ data }) => heard(data);
  }

  async #write(what, value, id) {
    if (!this.#database) {
      if (what === "put") this.#memory.set(id, value);
      else this.#memory.delete(id);
      return;
    }
    const objects = this.#objects("readwrite");
    objects[what](value);
    await finished(objects.transaction);
    this.#channel?.postMessage(id);
  }

  #objects(mode) {
    return this.#database.transaction("conversations", mode).objectStore("conversations");
  }
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** A write counts when its transaction is complete: room can run out as late as that. */
function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error ?? new Error("not written"));
  });
}

function takeAside() {
  try {
    const text = localStorage.getItem(ASIDE);
    localStorage.removeItem(ASIDE);
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}
