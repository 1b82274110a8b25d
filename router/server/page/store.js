// Store: the runs of this browser, in IndexedDB, within bounds. Where there is none, they last as long as the tab.

const NAME = "triptych";
const RUNS = "runs";
const MOST_RUNS = 300;
const MOST_BYTES = 256 * 1024 * 1024;

/**
 * @typedef {object} Run one press of the button, as it is kept
 * @property {string} id the job's
 * @property {number} createdAt milliseconds since the epoch
 * @property {"underway" | "done" | "failed" | "cancelled"} state
 * @property {Record<string, any>} fields what was asked, without the pictures
 * @property {Source | null} source
 * @property {{index: number, seed: number, blob: Blob}[]} pictures
 * @property {import("./job.js").Facts | null} facts
 * @property {string} failure
 *
 * @typedef {{image: Blob, mask: import("./mask.js").Stroke[]}} Source the picture started from, as it was chosen
 */

/**
 * Bytes that a run takes, near enough.
 * @param {Run} run
 */
export function bytesOf({ source, pictures }) {
  return pictures.reduce((sum, { blob }) => sum + blob.size, 2048 + (source?.image.size ?? 0));
}

/** Keeps runs; the oldest make room. */
export class Store {
  /** @param {IDBDatabase | null} database `null` where the browser refuses one */
  constructor(database) {
    this.database = database;
  }

  /** @returns {Promise<Store>} */
  static async open() {
    try {
      const opening = indexedDB.open(NAME, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(RUNS, { keyPath: "id" });
      return new Store(await settled(opening));
    } catch {
      return new Store(null);
    }
  }

  /** Whether runs outlive the tab. */
  get lasts() {
    return this.database !== null;
  }

  /** @returns {Promise<Run[]>} newest first */
  async all() {
    if (!this.database) return [];
    const runs = await settled(this.#transaction("readonly").objectStore(RUNS).getAll());
    return runs.sort((one, other) => other.createdAt - one.createdAt);
  }

  /**
   * Keeps a run, new or changed. It is asked for at once, so that what is asked for later comes later.
   * @param {Run} run
   * @returns {Promise<string[]>} the ids of those that had to go
   */
  async keep(run) {
    if (!this.database) return [];
    try {
      await this.#write((runs) => runs.put(run));
    } catch {
      this.database = null; // full, or taken away: the page says that runs do not last
      return [];
    }
    return this.#trim(run);
  }

  /**
   * Asked for at once, as `keep`, and all of them together.
   * @param {string[]} ids
   */
  async remove(ids) {
    if (!this.database || !ids.length) return;
    await this.#write((runs) => ids.forEach((id) => runs.delete(id)));
  }

  /**
   * Removes the oldest ended runs beyond the bounds.
   * @param {Run} added
   */
  async #trim(added) {
    const others = (await this.all()).filter((run) => run.id !== added.id);
    let count = 1;
    let bytes = bytesOf(added);
    const gone = [];
    for (const run of others) {
      count += 1;
      bytes += bytesOf(run);
      if ((count > MOST_RUNS || bytes > MOST_BYTES) && run.state !== "underway") gone.push(run.id);
    }
    await this.remove(gone);
    return gone;
  }

  /**
   * Committed here and now: one that waits for its own requests is lost with a page that is left meanwhile.
   * @param {(runs: IDBObjectStore) => void} change
   * @returns {Promise<void>}
   */
  #write(change) {
    const transaction = this.#transaction("readwrite");
    change(transaction.objectStore(RUNS));
    transaction.commit();
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(transaction.error);
    });
  }

  /** @param {IDBTransactionMode} mode */
  #transaction(mode) {
    if (!this.database) throw new Error("there is no database");
    return this.database.transaction(RUNS, mode);
  }
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
