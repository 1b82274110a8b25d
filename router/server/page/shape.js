// Shape: the choice of aspect ratio and size.

import { byId, element } from "./element.js";
import { near, presetsOf, ratiosOf } from "./size.js";

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
  /** Width over height of the picture to start from; 0 without one. */
  #picture = 0;
  #chosen = { ratio: "1:1", label: "M" };
  #onChange;

  /** @param {() => void} onChange called whenever the size is another one */
  constructor(onChange) {
    this.#onChange = onChange;
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
    const label = ratio?.presets.find(fits)?.label ?? "M";
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
      ratios.unshift({ name: PICTURE, value: this.#picture, presets: presetsOf(model, this.#picture) });
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
   * @param {number} ratio 0 where there is no picture any more
   */
  follow(ratio) {
    this.#picture = ratio;
    if (!this.#model) return;
    this.offer(this.#model);
    if (ratio) this.#chosen.ratio = this.#model.profiles ? this.#nearest(ratio) : PICTURE;
    this.#draw();
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
