// Viewer: one picture, large, with everything that is known of it.

import { byId, element } from "./element.js";
import { details, fileName } from "./words.js";

/** @typedef {import("./store.js").Run} Run */
/** @typedef {{run: Run, index: number}} Place */

/**
 * @typedef {object} Wishes what can be done with the picture that is shown
 * @property {(run: Run, seed: number) => void} again
 * @property {(blob: Blob) => void} start
 * @property {(run: Run, blob: Blob) => void} larger
 * @property {(run: Run, index: number) => void} remove
 */

/** The dialog. Arrow keys go to the neighbours. */
export class Viewer {
  /** @type {Place[]} */
  #places = [];
  #at = 0;
  #url = "";

  /** @param {Wishes} wishes */
  constructor(wishes) {
    this.wishes = wishes;
    this.dialog = byId("viewer", HTMLDialogElement);
    this.image = byId("viewer-image", HTMLImageElement);
    this.dialog.addEventListener("keydown", ({ key }) => this.#onKey(key));
    this.dialog.addEventListener("click", ({ target }) => target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => URL.revokeObjectURL(this.#url));
    this.#on("viewer-close", () => this.dialog.close());
    this.#on("viewer-left", () => this.#show(this.#at - 1));
    this.#on("viewer-right", () => this.#show(this.#at + 1));
    this.#on("viewer-again", () => this.#leave(() => this.wishes.again(this.#run, this.#picture.seed)));
    this.#on("viewer-start", () => this.#leave(() => this.wishes.start(this.#picture.blob)));
    this.#on("viewer-larger", () => this.#leave(() => this.wishes.larger(this.#run, this.#picture.blob)));
    this.#on("viewer-delete", () => this.#leave(() => this.wishes.remove(this.#run, this.#place.index)));
  }

  /**
   * @param {Run[]} runs newest first
   * @param {Run} run
   * @param {number} index of its pictures
   */
  open(runs, run, index) {
    this.#places = runs.flatMap((run) => run.pictures.map((_, index) => ({ run, index })));
    this.#show(this.#places.findIndex((place) => place.run.id === run.id && place.index === index));
    this.dialog.showModal();
  }

  get #place() {
    return this.#places[this.#at];
  }

  get #run() {
    return this.#place.run;
  }

  get #picture() {
    return this.#run.pictures[this.#place.index];
  }

  /** @param {number} at */
  #show(at) {
    if (!this.#places[at]) return;
    this.#at = at;
    const { blob, seed } = this.#picture;
    URL.revokeObjectURL(this.#url);
    this.#url = URL.createObjectURL(blob);
    const prompt = `${this.#run.fields.prompt ?? ""}`;
    Object.assign(this.image, { src: this.#url, alt: prompt || "Picture without a prompt" });
    byId("viewer-prompt", HTMLElement).textContent = prompt;
    const rows = details(this.#run, seed).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value)),
    );
    byId("viewer-list", HTMLElement).replaceChildren(...rows);
    const notes = [...(this.#run.facts?.adjustments ?? []), ...(this.#run.facts?.notes ?? [])];
    byId("viewer-notes", HTMLElement).replaceChildren(...notes.map((note) => element("li", {}, note)));
    const download = byId("viewer-download", HTMLAnchorElement);
    Object.assign(download, { href: this.#url, download: fileName(this.#run, seed, blob) });
    byId("viewer-left", HTMLButtonElement).disabled = !this.#places[at - 1];
    byId("viewer-right", HTMLButtonElement).disabled = !this.#places[at + 1];
  }

  /** @param {() => void} then */
  #leave(then) {
    this.dialog.close();
    then();
  }

  /** @param {string} key */
  #onKey(key) {
    if (key === "ArrowLeft") this.#show(this.#at - 1);
    if (key === "ArrowRight") this.#show(this.#at + 1);
  }

  /**
   * @param {string} id
   * @param {() => void} act
   */
  #on(id, act) {
    byId(id, HTMLButtonElement).addEventListener("click", act);
  }
}
