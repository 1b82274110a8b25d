// The API key: asked for when the service wants one, and kept for the tab or, if so wished, the browser.

import { byId } from "./element.js";
import { recall, remember } from "./memory.js";

const NAME = "triptych.key";

/** The key of this browser, and the dialog that asks for it. */
export class Key {
  /** @type {Promise<void> | null} */
  #asking = null;

  constructor() {
    this.value = recall("sessionStorage", NAME) || recall("localStorage", NAME);
    this.dialog = byId("sign-in", HTMLDialogElement);
    this.input = byId("api-key", HTMLInputElement);
    this.signOut = byId("sign-out", HTMLButtonElement);
    this.signOut.hidden = !this.value;
    this.signOut.addEventListener("click", () => this.#forget());
    this.dialog.addEventListener("cancel", (event) => event.preventDefault());
  }

  /** @returns {Record<string, string>} */
  get header() {
    return this.value ? { Authorization: `Bearer ${this.value}` } : {};
  }

  /**
   * Resolves when there is a key to try. One dialog serves all calls that wait for it.
   * @returns {Promise<void>}
   */
  ask() {
    this.#asking ??= this.#answered(this.value ? "That key is not known here." : "").finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  /** @param {string} problem */
  async #answered(problem) {
    byId("sign-in-error", HTMLElement).textContent = problem;
    this.input.setAttribute("aria-invalid", `${problem !== ""}`);
    this.input.value = "";
    this.dialog.showModal();
    await new Promise((resolve) => this.dialog.addEventListener("close", resolve, { once: true }));
    this.#keep(this.input.value.trim());
  }

  /** @param {string} value */
  #keep(value) {
    this.value = value;
    const isForGood = byId("remember", HTMLInputElement).checked;
    remember("localStorage", NAME, isForGood ? value : "");
    remember("sessionStorage", NAME, isForGood ? "" : value);
    this.signOut.hidden = !value;
  }

  #forget() {
    remember("sessionStorage", NAME, "");
    remember("localStorage", NAME, "");
    location.reload();
  }
}
