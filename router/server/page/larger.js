// Larger: a finished picture, made larger by a model that does that, where the service has one.

import { ApiError } from "./api.js";
import { base64 } from "./base64.js";
import { byId } from "./element.js";
import { submit } from "./job.js";

/** @typedef {import("./store.js").Run} Run */
/** @typedef {import("./model.js").ModelDocument} ModelDocument */

/**
 * Whether a model is of use to the form; one that only makes pictures larger is not.
 * @param {ModelDocument} model
 */
export function paints({ tasks }) {
  return !tasks.length || tasks.some((task) => task !== "upscale");
}

/** The button of the viewer. */
export class Larger {
  #button = byId("viewer-larger", HTMLButtonElement);
  #scale = 0;

  /**
   * @param {import("./api.js").Api} api
   * @param {(run: Run) => Promise<void>} begun called with the new run
   */
  constructor(api, begun) {
    this.api = api;
    this.begun = begun;
  }

  /** @param {ModelDocument[]} models what there is */
  offer(models) {
    const instances = models.flatMap(({ instances }) => instances);
    this.#scale = Math.max(0, ...instances.flatMap(({ scales }) => scales));
    this.#button.hidden = this.#scale === 0;
    byId("viewer-times", HTMLElement).textContent = `${this.#scale} × as large`;
  }

  /**
   * @param {Run} run
   * @param {Blob} blob
   */
  async make({ fields }, blob) {
    const { prompt } = fields;
    try {
      const job = await submit(this.api, { image: await base64(blob), scale: this.#scale });
      await this.begun(runOf(job.id, { prompt, scale: this.#scale }));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      byId("form-error", HTMLElement).textContent = error.message;
    }
  }
}

/**
 * A run that has just begun.
 * @param {string} id of its job
 * @param {Record<string, any>} fields
 * @param {import("./store.js").Source | null} source
 * @returns {Run}
 */
export function runOf(id, fields, source = null) {
  const state = /** @type {const} */ ("underway");
  return { id, createdAt: Date.now(), state, fields, source, pictures: [], facts: null, failure: "" };
}
