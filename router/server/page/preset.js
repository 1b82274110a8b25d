// Preset: named settings. Choosing one writes them into the form; changing one of them leaves it.

import { byId } from "./element.js";

/**
 * @typedef {object} PresetDocument as /api/v1/capabilities describes it
 * @property {string} name
 * @property {string} description
 * @property {Record<string, any>} fields
 * @property {string} why_not why the model does not do it; empty if it does
 */

/** The choice among the presets of a model. */
export class Preset {
  /** @type {PresetDocument[]} */
  #presets = [];

  /** @param {(fields: Record<string, any>) => void} onChoose called with the settings of the one chosen */
  constructor(onChoose) {
    this.input = byId("preset", HTMLSelectElement);
    this.about = byId("preset-about", HTMLElement);
    this.input.addEventListener("input", () => {
      if (this.#chosen) onChoose(this.#chosen.fields);
      this.#tell();
    });
  }

  /** The chosen one's name; empty for settings of one's own. */
  get name() {
    return this.input.value;
  }

  set name(name) {
    this.input.value = this.#presets.some((each) => each.name === name && !each.why_not) ? name : "";
    this.#tell();
  }

  get #chosen() {
    return this.#presets.find(({ name }) => name === this.input.value);
  }

  /** @param {PresetDocument[]} presets of the model that is chosen */
  offer(presets) {
    if (JSON.stringify(presets) === JSON.stringify(this.#presets)) return;
    const { name } = this;
    this.#presets = presets;
    const options = presets.map((each) => {
      const option = new Option(each.name, each.name);
      option.disabled = each.why_not !== "";
      option.title = each.why_not || each.description;
      return option;
    });
    this.input.replaceChildren(new Option("My own settings", ""), ...options);
    this.name = name;
  }

  /**
   * Leaves the preset where the form says otherwise.
   * @param {Record<string, any>} fields
   */
  follow(fields) {
    const settings = Object.entries(this.#chosen?.fields ?? {});
    if (settings.some(([name, value]) => name in fields && fields[name] !== value)) this.name = "";
  }

  #tell() {
    this.about.textContent = this.#chosen?.description ?? "";
  }
}
