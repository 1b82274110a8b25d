// Shape: the choice of aspect ratio and size.

import { ApiError } from "./api.js";
import { byId, element } from "./element.js";
import { near, OWN, presetsOf, ratiosOf, valueOf } from "./size.js";

/** @typedef {import("./size.js").Size} Size */

const CUSTOM = "Custom";
const PICTURE = "Picture";
const FIXED = "This model makes fixed sizes only.";

/** The size fieldset. */
export class Shape {
  /** @type {import("./model.js").Model | null} */
  #model = null;
  /** @type {import("./size.js").Ratio[]} */
  #ratios = [];
  /** Ratio of the picture to start from, such as `16:9`; empty without one. */
  #picture = "";
  /** @type {Map<string, import("./size.js").Preset[]>} model and picture's ratio -> what the service said */
  #pictured = new Map();
  #chosen = { ratio: "1:1", label: OWN };
  #onChange;
  #ask;

  /**
   * @param {() => void} onChange called whenever the size is another one
   * @param {import("./api.js").Api["sizes"]} ask what presets stand for at a picture's ratio
   */
  constructor(onChange, ask) {
    this.#onChange = onChange;
    this.#ask = ask;
    this.ratios = byId("ratios", HTMLElement);
    this.presets = byId("presets", HTMLElement);
    this.custom = byId("custom", HTMLElement);
    this.width = byId("width", HTMLInputElement);
    this.height = byId("height", HTMLInputElement);
    this.shown = byId("size-shown", HTMLOutputElement);
    for (const side of [this.width, this.height]) {
      side.addEventListener("input", () => this.#tell());
      side.addEventListener("change", () => this.round());
    }
    for (const group of [this.ratios, this.presets])
      group.addEventListener("change", (event) => this.#choose(event));
  }

  /** @returns {Size} */
  get size() {
    return { width: this.width.valueAsNumber, height: this.height.valueAsNumber };
  }

  /**
   * Chooses this size, by its name where it has one.
   * @param {Size} size
   */
  set size({ width, height }) {
    const fits = (/** @type {Size} */ preset) => preset.width === width && preset.height === height;
    const ratio = this.#ratios.find(({ presets }) => presets.some(fits));
    const label = ratio?.presets.find(fits)?.label ?? OWN;
    this.width.value = `${width}`;
    this.height.value = `${height}`;
    this.#chosen = { ratio: ratio?.name ?? CUSTOM, label };
    this.#draw();
  }

  /**
   * Offers what the model can make; keeps the choice where it can.
   * @param {import("./model.js").Model} model
   */
  offer(model) {
    const ratios = ratiosOf(model);
    if (this.#picture && !model.profiles) {
      const presets = this.#pictured.get(this.#key(model));
      if (presets) ratios.unshift({ name: PICTURE, value: valueOf(this.#picture), presets });
      else this.#learn(model).then(() => this.#model === model && this.offer(model));
    }
    const isSame = JSON.stringify(ratios) === JSON.stringify(this.#ratios);
    this.#model = model;
    this.#ratios = ratios;
    const { multiple, least, mostHeight, mostWidth } = model.sides;
    Object.assign(this.width, { step: `${multiple}`, min: `${least}`, max: `${mostWidth}` });
    Object.assign(this.height, { step: `${multiple}`, min: `${least}`, max: `${mostHeight}` });
    if (!isSame) this.#draw();
  }

  /**
   * With a picture to start from, its own ratio is offered and chosen, or the nearest one.
   * @param {string} ratio such as `16:9`; empty where there is no picture any more
   */
  async follow(ratio) {
    this.#picture = ratio;
    if (this.#model && ratio && !this.#model.profiles) await this.#learn(this.#model);
    if (!this.#model || this.#picture !== ratio) return;
    this.offer(this.#model);
    const isOffered = this.#pictured.get(this.#key(this.#model))?.length && !this.#model.profiles;
    if (ratio) this.#chosen.ratio = isOffered ? PICTURE : this.#nearest(valueOf(ratio));
    this.#draw();
  }

  /**
   * What the service makes of the picture's ratio; kept, and asked for again where it did not answer.
   * @param {import("./model.js").Model} model
   */
  async #learn(model) {
    const key = this.#key(model);
    if (this.#pictured.has(key)) return;
    try {
      this.#pictured.set(key, presetsOf(await this.#ask(model.name, this.#picture)));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
    }
  }

  /** @param {import("./model.js").Model} model */
  #key(model) {
    return `${model.name} ${this.#picture}`;
  }

  /** Rounds sides typed by hand to what the model can make. */
  round() {
    if (!this.#model || this.#model.profiles) return;
    for (const side of [this.width, this.height]) {
      const [step, least, most] = [side.step, side.min, side.max].map(Number);
      side.value = `${near(side.valueAsNumber || least, step, least, most)}`;
    }
    this.#tell();
  }

  /** @param {number} value */
  #nearest(value) {
    const distance = (/** @type {{value: number}} */ ratio) => Math.abs(Math.log(ratio.value / value));
    const offered = this.#ratios.filter(({ presets }) => presets.length);
    return offered.reduce((best, next) => (distance(next) < distance(best) ? next : best)).name;
  }

  #draw() {
    const isFixed = this.#model?.profiles != null;
    const names = [...this.#ratios, { name: CUSTOM, value: 0, presets: [] }];
    const offered = names.filter(({ name, presets }) => (name === CUSTOM ? !isFixed : presets.length));
    if (!offered.some(({ name }) => name === this.#chosen.ratio)) this.#chosen.ratio = offered[0].name;
    const segments = names.map((ratio) => {
      const why = offered.includes(ratio) ? "" : FIXED;
      return segment("ratio", ratio.name, this.#chosen.ratio === ratio.name, why, glyphOf(ratio.value));
    });
    this.ratios.replaceChildren(...segments);
    byId("shape-why", HTMLElement).textContent = isFixed ? FIXED : "";
    this.#drawPresets();
  }

  #drawPresets() {
    const presets = this.#ratios.find(({ name }) => name === this.#chosen.ratio)?.presets ?? [];
    this.custom.hidden = presets.length > 0;
    this.presets.hidden = presets.length === 0;
    const chosen = presets.find(({ label }) => label === this.#chosen.label) ?? presets[presets.length >> 1];
    if (chosen) {
      this.width.value = `${chosen.width}`;
      this.height.value = `${chosen.height}`;
    }
    const segments = presets.map((preset) => segment("preset", preset.label, preset === chosen, "", null));
    this.presets.replaceChildren(...segments);
    this.#tell();
  }

  /** @param {Event} event a change of one of the radio buttons */
  #choose({ target }) {
    if (!(target instanceof HTMLInputElement)) return;
    if (target.name === "ratio") this.#chosen.ratio = target.value;
    else this.#chosen.label = target.value;
    if (target.name === "ratio") return this.#drawPresets();
    const presets = this.#ratios.find(({ name }) => name === this.#chosen.ratio)?.presets ?? [];
    const { width, height } = presets.find(({ label }) => label === target.value) ?? this.size;
    this.width.value = `${width}`;
    this.height.value = `${height}`;
    this.#tell();
  }

  #tell() {
    const { width, height } = this.size;
    this.shown.value = width && height ? `${width} × ${height}` : "";
    this.#onChange();
  }
}

/**
 * A radio button that looks like a part of a bar.
 * @param {string} group
 * @param {string} name
 * @param {boolean} checked
 * @param {string} why it cannot be chosen; empty if it can
 * @param {Node | null} glyph
 */
function segment(group, name, checked, why, glyph) {
  const input = element("input", { type: "radio", name: group, value: name, checked, disabled: why !== "" });
  const shown = element("span", {}, ...(glyph ? [glyph] : []), name);
  return element("label", { className: "segment", title: why }, input, shown);
}

/** @param {number} ratio 0 for none */
function glyphOf(ratio) {
  if (!ratio) return null;
  const glyph = element("i", { className: ratio < 1 ? "glyph tall" : "glyph" });
  glyph.style.aspectRatio = `${ratio}`;
  return glyph;
}
