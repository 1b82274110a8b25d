// Form: everything that is asked, as the request's fields and back.

import { Copy } from "./copy.js";
import { byId } from "./element.js";
import { disable, refuse } from "./field.js";
import { Loras } from "./loras.js";
import { recall, remember } from "./memory.js";
import { Preset } from "./preset.js";
import { Seed } from "./seed.js";
import { Shape } from "./shape.js";
import { Slider } from "./slider.js";
import { Source } from "./source.js";
import { Wording } from "./wording.js";
import { counted } from "./words.js";

/** @typedef {import("./model.js").Model} Model */

const NAME = "triptych.form";
const NUMBERS = [
  "num_inference_steps",
  "guidance_scale",
  "true_cfg_scale",
  "num_images_per_prompt",
  "strength",
];
const STEPS_REACH = 60; // of the sliders; more can be typed
const GUIDANCE_REACH = 20;
/** @type {Record<string, string>} what a field shows that an earlier run did not have */
const ABSENT = { negative_prompt: "", true_cfg_scale: "1" };
const TEXTS = ["prompt", "negative_prompt", "scheduler"];

/** The panel on the left. */
export class Form {
  /** @type {Model[]} */
  #models = [];
  /** @type {import("./wording.js").Enhancer | null} */
  #enhancer = null;
  #sliders = [...document.querySelectorAll(".slider")].map(
    (range) => new Slider(/** @type {HTMLInputElement} */ (range)),
  );
  #onChange;

  /**
   * @param {() => void} onChange called when anything that is asked is another
   * @param {import("./api.js").Api} api
   */
  constructor(onChange, api) {
    this.#onChange = onChange;
    this.element = byId("form", HTMLFormElement);
    this.modelInput = byId("model", HTMLSelectElement);
    this.previews = byId("previews", HTMLInputElement);
    this.seed = new Seed();
    this.loras = new Loras();
    this.copy = new Copy();
    this.wording = new Wording();
    this.preset = new Preset((fields) => this.#write(fields));
    this.source = new Source((ratio) => this.shape.follow(ratio));
    this.shape = new Shape(
      () => this.#changed(),
      (model, ratio) => api.sizes(model, ratio),
    );
    this.modelInput.addEventListener("change", () => this.#takeDefaults());
    for (const kind of ["input", "change"]) this.element.addEventListener(kind, () => this.#changed());
  }

  /** @returns {Model | undefined} */
  get model() {
    return this.#models.find(({ name }) => name === this.modelInput.value) ?? this.#models[0];
  }

  /**
   * What there is to choose from, at first and whenever it changes.
   * @param {Model[]} models
   * @param {string} preferred the default model's name
   * @param {import("./wording.js").Enhancer | null} enhancer
   */
  offer(models, preferred, enhancer) {
    const isFirst = this.#models.length === 0;
    this.#models = models;
    this.#enhancer = enhancer;
    const names = models.map(({ name }) => name);
    if (names.join("\n") !== [...this.modelInput.options].map(({ value }) => value).join("\n")) {
      const chosen = names.includes(this.modelInput.value) ? this.modelInput.value : preferred;
      this.modelInput.replaceChildren(...names.map((name) => new Option(name, name)));
      this.modelInput.value = chosen;
    }
    if (isFirst) this.#restore();
    else this.#fitModel();
  }

  /**
   * The request's fields, without pictures. What is empty is left to the model.
   * @returns {Record<string, any>}
   */
  read() {
    const fields = /** @type {Record<string, any>} */ ({ model: this.model?.name, ...this.shape.size });
    for (const side of ["width", "height"]) if (!fields[side]) delete fields[side];
    for (const name of TEXTS) {
      const { value, disabled } = this.#input(name);
      if (value.trim() && !disabled) fields[name] = value;
    }
    for (const name of NUMBERS) {
      const { value, valueAsNumber, disabled, validity } = /** @type {HTMLInputElement} */ (
        this.#input(name)
      );
      if (!disabled && (value || validity.badInput)) fields[name] = valueAsNumber;
    }
    if (!this.source.isThere) delete fields.strength;
    else if (this.copy.input.checked) fields.exact_copy = true;
    if (!this.model?.hasTrueGuidance || fields.true_cfg_scale <= 1) delete fields.true_cfg_scale;
    Object.assign(fields, this.wording.fields);
    if (this.preset.name) fields.preset = this.preset.name;
    fields.seed = this.seed.value;
    const loras = this.loras.read();
    if (loras.length) fields.loras = loras;
    if (this.previews.checked && !this.previews.disabled) fields.previews = true;
    return fields;
  }

  /**
   * Takes the fields and the picture of an earlier run.
   * @param {Record<string, any>} fields
   * @param {import("./store.js").Source | null} source
   */
  async fill(fields, source) {
    if (this.#models.some(({ name }) => name === fields.model)) this.modelInput.value = fields.model;
    if (source) await this.source.take(source.image, source.mask);
    else if (this.source.isThere) this.source.remove();
    this.copy.take(fields);
    this.wording.take(fields);
    this.#write(fields);
    byId("prompt", HTMLTextAreaElement).focus();
  }

  /**
   * Shows what is wrong beside the field, or else by the button.
   * @param {{message: string, param: string | null}} error
   */
  refuse({ message, param }) {
    if (!param || !refuse(param, message)) byId("form-error", HTMLElement).textContent = message;
  }

  /**
   * @param {string} name
   * @returns {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement}
   */
  #input(name) {
    return /** @type {HTMLInputElement} */ (byId(name, HTMLElement));
  }

  /** @param {Record<string, any>} fields */
  #write(fields) {
    this.#fitModel();
    for (const name of [...TEXTS, ...NUMBERS]) {
      if (fields[name] != null) this.#input(name).value = `${fields[name]}`;
      else if (name in ABSENT) this.#input(name).value = ABSENT[name];
    }
    if ("preset" in fields) this.preset.name = fields.preset;
    this.#sliders.forEach((slider) => slider.follow());
    if (fields.width && fields.height) this.shape.size = { width: fields.width, height: fields.height };
    if (fields.seed != null) this.seed.take(fields.seed);
    this.loras.write(fields.loras ?? []);
    this.#changed();
  }

  #takeDefaults() {
    const model = this.model;
    if (!model) return;
    const { width, height, ...defaults } = model.defaults;
    this.#write({ ...defaults, scheduler: defaults.scheduler ?? model.schedulers[0] ?? "" });
    if (width && height) this.shape.size = { width, height };
  }

  /** Limits and abilities of the model that is chosen. */
  #fitModel() {
    const model = this.model;
    if (!model) return;
    const { max_steps, max_guidance, max_images } = model.limits;
    for (const slider of this.#sliders) {
      if (slider.number.id === "strength") slider.limit(1, 1);
      else if (slider.number.id === "num_inference_steps") slider.limit(max_steps, STEPS_REACH);
      else slider.limit(max_guidance, GUIDANCE_REACH);
    }
    this.#input("num_images_per_prompt").setAttribute("max", `${max_images}`);
    byId("model-about", HTMLElement).textContent = model.description;
    this.#offerSchedulers(model);
    this.loras.offer(model.loras);
    this.preset.offer(model.presets);
    this.wording.offer(this.#enhancer, model);
    this.source.isOff = model.whyNot("image-to-image") !== "";
    this.shape.offer(model);
    this.#fitAbilities(model);
  }

  /** @param {Model} model */
  #fitAbilities(model) {
    disable("image", model.whyNot("image-to-image"));
    disable("mask_image", model.whyNot("inpainting"));
    this.source.mask.isOff = model.whyNot("inpainting") !== "";
    disable("guidance_scale", model.whyNot("guidance_scale"));
    disable("previews", model.whyNot("previews"));
    disable("scheduler", model.schedulers.length > 1 ? "" : "This model has one scheduler.");
    const trueGuidance = /** @type {HTMLElement} */ (document.querySelector('[data-field="true_cfg_scale"]'));
    trueGuidance.hidden = !model.hasTrueGuidance;
    const scale = model.hasTrueGuidance ? "true_cfg_scale" : "guidance_scale";
    const isGuided =
      Number(this.#input(scale).value || (model.hasTrueGuidance ? 1 : model.defaults.guidance_scale)) > 1;
    const name = model.hasTrueGuidance ? "True guidance" : "Guidance";
    disable(
      "negative_prompt",
      model.whyNot("negative_prompt") || (isGuided ? "" : `It needs ${name} above 1.`),
    );
    this.copy.settle(this.source.isThere);
  }

  /** @param {Model} model */
  #offerSchedulers({ schedulers, schedulerNames }) {
    const input = byId("scheduler", HTMLSelectElement);
    const names = [...schedulers, ...schedulerNames];
    if (names.join() === [...input.options].map(({ value }) => value).join()) return;
    const chosen = input.value;
    const usual = document.createElement("optgroup");
    usual.label = "By their usual names";
    usual.append(...schedulerNames.map((name) => new Option(name, name)));
    input.replaceChildren(...schedulers.map((name) => new Option(name, name)), usual);
    input.value = names.includes(chosen) ? chosen : (schedulers[0] ?? "");
  }

  #changed() {
    if (!this.model) return;
    this.source.fit(this.shape.size);
    this.#fitAbilities(this.model);
    this.preset.follow(this.read());
    const kept = { ...this.read(), keep: this.seed.keep.checked, previews: this.previews.checked };
    remember("localStorage", NAME, JSON.stringify(kept));
    byId("settings-shown", HTMLElement).textContent = this.#summary();
    this.#onChange();
  }

  /** What is set, for a form whose settings are folded. */
  #summary() {
    return `${this.model?.name} · ${this.shape.shown.value} · ${counted(this.read().num_inference_steps ?? 0, "step")}`;
  }

  /** What the form held when the page was left; the model's defaults the first time. */
  #restore() {
    const { keep, previews, seed, ...fields } = whatWasKept();
    this.#takeDefaults();
    if (!("model" in fields)) return;
    if (this.#models.some(({ name }) => name === fields.model)) this.modelInput.value = fields.model;
    this.#takeDefaults();
    this.#write(keep ? { ...fields, seed } : fields);
    this.wording.take(fields);
    this.previews.checked = previews;
  }
}

/** @returns {Record<string, any>} empty where nothing can be read */
function whatWasKept() {
  try {
    return JSON.parse(recall("localStorage", NAME)) ?? {};
  } catch {
    return {};
  }
}
