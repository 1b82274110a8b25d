// Wording: what is done with the words of the prompts before a model reads them.

import { byId } from "./element.js";

/** @typedef {{by_default: boolean, on_failure: string}} Enhancer of prompts, where the service has one */

/** The boxes about the prompts. One that the service or the model has no use for is not shown. */
export class Wording {
  #enhance = byId("enhance", HTMLInputElement);
  #weighting = byId("prompt_weighting", HTMLInputElement);
  #long = byId("long_prompt", HTMLInputElement);
  #isNew = true;

  /**
   * @param {Enhancer | null} enhancer
   * @param {import("./model.js").Model} model
   */
  offer(enhancer, model) {
    if (this.#isNew) this.#enhance.checked = enhancer?.by_default ?? false;
    this.#isNew = false;
    show(this.#enhance, enhancer !== null);
    for (const box of [this.#weighting, this.#long]) show(box, !model.whyNot(box.id));
  }

  /** The fields of the request. */
  get fields() {
    /** @type {Record<string, boolean | string>} */
    const fields = {};
    if (isShown(this.#enhance)) fields.enhance = this.#enhance.checked && !this.#enhance.disabled;
    if (isShown(this.#weighting) && this.#weighting.checked) fields.prompt_weighting = true;
    if (isShown(this.#long) && this.#long.checked) fields.long_prompt = "chunk";
    return fields;
  }

  /** @param {Record<string, any>} fields of an earlier run */
  take({ enhance, prompt_weighting, long_prompt }) {
    if (enhance != null) this.#enhance.checked = enhance;
    this.#weighting.checked = Boolean(prompt_weighting);
    this.#long.checked = long_prompt === "chunk";
  }
}

/** @param {HTMLInputElement} box */
function placeOf(box) {
  return /** @type {HTMLElement} */ (box.closest("[data-field]"));
}

/**
 * @param {HTMLInputElement} box
 * @param {boolean} isOf whether it is of use
 */
function show(box, isOf) {
  placeOf(box).hidden = !isOf;
}

/** @param {HTMLInputElement} box */
function isShown(box) {
  return !placeOf(box).hidden;
}
