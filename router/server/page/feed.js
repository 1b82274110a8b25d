// Feed: the runs of this browser, newest first; those under way are followed, after a reload too.

import { announce } from "./announcer.js";
import { ApiError } from "./api.js";
import { Card, endingOf } from "./card.js";
import { byId } from "./element.js";
import { collect, follow } from "./job.js";
import { bytesOf } from "./store.js";
import { offerUndo } from "./toast.js";
import { bytes, counted } from "./words.js";

/** @typedef {import("./store.js").Run} Run */

/** The column on the right. */
export class Feed {
  /** @type {Map<string, Card>} */
  #cards = new Map();
  #list = byId("runs", HTMLElement);

  /**
   * @param {import("./api.js").Api} api
   * @param {import("./store.js").Store} store
   * @param {Pick<import("./card.js").Actions, "open" | "again">} actions
   */
  constructor(api, store, actions) {
    this.api = api;
    this.store = store;
    this.actions = {
      ...actions,
      cancel: (/** @type {Run} */ run) => this.#cancel(run),
      remove: (/** @type {Run} */ run) => this.remove([run]),
    };
    byId("delete-all", HTMLButtonElement).addEventListener("click", () => this.remove(this.#ended));
    setInterval(() => this.#cards.forEach((card) => card.tick()), 30_000);
  }

  /** Newest first. */
  get runs() {
    return [...this.#cards.values()]
      .map(({ run }) => run)
      .sort((one, other) => other.createdAt - one.createdAt);
  }

  get #ended() {
    return this.runs.filter(({ state }) => state !== "underway");
  }

  /** Shows what was kept, and takes up what is under way. */
  async restore() {
    for (const run of await this.store.all()) this.#show(run);
    this.#count();
  }

  /**
   * @param {Run} run which the service has accepted
   */
  async add(run) {
    this.#show(run);
    byId(`run-${run.id}`, HTMLElement).scrollIntoView({ block: "nearest" });
    announce("Accepted.");
    await this.#keep(run);
  }

  /**
   * Deletes runs that have ended, with a way back.
   * @param {Run[]} runs
   */
  async remove(runs) {
    const pictures = runs.reduce((sum, run) => sum + run.pictures.length, 0);
    const next = runs.length === 1 ? this.#cards.get(runs[0].id)?.element.nextElementSibling : null;
    const ids = runs.map(({ id }) => id);
    this.#forget(ids);
    (next?.querySelector("button") ?? byId("feed", HTMLElement)).focus();
    offerUndo(`${pictures ? counted(pictures, "picture") : counted(runs.length, "entry")} deleted.`, () =>
      this.#bringBack(runs),
    );
    await this.store.remove(ids);
  }

  /**
   * @param {Run} run
   * @param {number} index of the picture to delete; the last one takes the run with it
   */
  async removePicture(run, index) {
    const pictures = run.pictures.filter((_, place) => place !== index);
    if (!pictures.length) return this.remove([run]);
    offerUndo("1 picture deleted.", () => this.#update(run));
    await this.#update({ ...run, pictures });
  }

  /** @param {Run[]} runs */
  async #bringBack(runs) {
    for (const run of runs) {
      this.#show(run);
      await this.#keep(run);
    }
  }

  /** @param {Run} run */
  #show(run) {
    const card = new Card(run, this.actions);
    this.#cards.set(run.id, card);
    const older = this.runs.find(({ createdAt }) => createdAt < run.createdAt);
    this.#list.insertBefore(card.element, (older && this.#cards.get(older.id)?.element) ?? null);
    this.#count();
    if (run.state === "underway") this.#follow(card);
  }

  /** @param {Card} card */
  async #follow(card) {
    try {
      for await (const news of follow(this.api, card.run.id)) {
        if (!this.#cards.has(card.run.id)) return;
        if (news.kind === "ended") await this.#end(card.run, news.job);
        else card.progress(news);
      }
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      await this.#update({ ...card.run, state: "failed", failure: error.message });
    }
  }

  /**
   * @param {Run} run
   * @param {import("./job.js").Job} job
   */
  async #end(run, job) {
    const pictures = await collect(this.api, job);
    const state = /** @type {Run["state"]} */ (job.state);
    const failure = job.error?.message ?? (state === "cancelled" ? "Cancelled." : "");
    const ended = { ...run, state, pictures, facts: job.meta ?? null, failure };
    announce(endingOf(ended));
    await this.#update(ended);
  }

  /** @param {Run} run */
  async #update(run) {
    this.#cards.get(run.id)?.update(run);
    this.#count();
    await this.#keep(run);
  }

  /** @param {Run} run */
  async #keep(run) {
    this.#forget(await this.store.keep(run));
  }

  /** @param {Run} run */
  async #cancel(run) {
    const { cancel } = this.#cards.get(run.id) ?? {};
    if (cancel) cancel.disabled = true;
    try {
      await this.api.cancel(run.id);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      announce(error.message);
      if (cancel) cancel.disabled = false;
    }
  }

  /** @param {string[]} ids */
  #forget(ids) {
    for (const id of ids) {
      this.#cards.get(id)?.remove();
      this.#cards.delete(id);
    }
    this.#count();
  }

  #count() {
    const runs = this.runs;
    const underway = runs.length - this.#ended.length;
    document.title = underway ? `(${underway}) Triptych` : "Triptych";
    const pictures = runs.reduce((sum, run) => sum + run.pictures.length, 0);
    const size = bytes(runs.reduce((sum, run) => sum + bytesOf(run), 0));
    byId("empty", HTMLElement).hidden = runs.length > 0;
    byId("kept", HTMLElement).hidden = this.#ended.length === 0;
    byId("kept-note", HTMLElement).textContent = this.store.lasts
      ? `${counted(pictures, "picture")} in this browser, ${size}`
      : `${counted(pictures, "picture")}; this browser keeps none when the tab is closed`;
  }
}
