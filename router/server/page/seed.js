// Seed: drawn anew for every run, unless it is kept.

import { byId } from "./element.js";

/** The seed field; what it shows is what the next run will use. */
export class Seed {
  constructor() {
    this.input = byId("seed", HTMLInputElement);
    this.keep = byId("keep", HTMLInputElement);
    byId("dice", HTMLButtonElement).addEventListener("click", () => this.draw());
    this.input.addEventListener("input", () => (this.keep.checked = true));
    this.draw();
  }

  /** A number as it was typed; empty is left to the service. */
  get value() {
    const text = this.input.value.trim();
    if (text === "") return undefined;
    return /^\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : text;
  }

  /** @param {number} seed which is kept from now on */
  take(seed) {
    this.input.value = `${seed}`;
    this.keep.checked = true;
  }

  draw() {
    this.input.value = `${crypto.getRandomValues(new Uint32Array(1))[0]}`;
    this.input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** After a run: another one, unless this one is kept. */
  next() {
    if (!this.keep.checked) this.draw();
  }
}
