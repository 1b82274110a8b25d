// Model: what one model can do, over all of its instances, and in the service's words what it cannot.

/**
 * @typedef {import("./size.js").Size} Size
 *
 * @typedef {{name: string, family: string, why_not: string}} Lora `why_not` is empty if it can be applied
 *
 * @typedef {object} Instance one way to serve a model, as /api/v1/capabilities describes it
 * @property {string} name
 * @property {string} backend
 * @property {string} device
 * @property {string} state
 * @property {string} breaker
 * @property {string} error why it cannot serve; empty if it can
 * @property {number} running
 * @property {number} waiting
 * @property {string[]} tasks
 * @property {number | null} size_multiple
 * @property {number | null} min_side
 * @property {number | null} max_side
 * @property {Size[]} profiles if any, only these sizes
 * @property {string[]} schedulers
 * @property {number[]} scales how many times larger it makes a picture, if it does
 * @property {Lora[]} lora_facts
 * @property {string[]} scheduler_names
 * @property {Record<string, string>} cannot task or field -> why this instance does not do it
 *
 * @typedef {object} Defaults nothing is there while no instance is known
 * @property {number} [height]
 * @property {number} [width]
 * @property {number} [num_inference_steps]
 * @property {number} [guidance_scale] not there for a model without guidance
 * @property {number} [strength]
 * @property {string} [scheduler]
 * @property {string} [negative_prompt]
 *
 * @typedef {object} ModelDocument
 * @property {string} name
 * @property {string} description
 * @property {string[]} tasks
 * @property {Defaults} defaults
 * @property {(Size & {ratio: string, preset: string})[]} sizes
 * @property {import("./preset.js").PresetDocument[]} presets
 * @property {Instance[]} instances
 *
 * @typedef {object} Limits
 * @property {number} max_height
 * @property {number} max_width
 * @property {number} max_steps
 * @property {number} max_guidance
 * @property {number} max_images
 *
 * @typedef {{default_model: string, limits: Limits, models: ModelDocument[],
 *   enhancer: import("./wording.js").Enhancer | null}} CapabilitiesDocument
 */

/** One model. An ability is there if any instance that is known has it. */
export class Model {
  /**
   * @param {ModelDocument} document
   * @param {Limits} limits
   */
  constructor(document, limits) {
    this.name = document.name;
    this.description = document.description;
    this.defaults = document.defaults;
    this.sizes = document.sizes;
    this.presets = document.presets;
    this.instances = document.instances;
    this.limits = limits;
  }

  /** The instances that have said what they can do. */
  get known() {
    return this.instances.filter(({ tasks }) => tasks.length);
  }

  /** The fixed sizes within the limits, or `null` where some instance takes any size. */
  get profiles() {
    const { known, limits } = this;
    if (!known.length || known.some(({ profiles }) => !profiles.length)) return null;
    return known
      .flatMap(({ profiles }) => profiles)
      .filter(({ height, width }) => height <= limits.max_height && width <= limits.max_width);
  }

  /** Bounds of width and height, for a model that takes any size. */
  get sides() {
    const free = this.known.filter(({ profiles }) => !profiles.length);
    const most = Math.max(...free.map(({ max_side }) => max_side ?? 0), 8);
    return {
      multiple: Math.min(...free.map(({ size_multiple }) => size_multiple ?? 8), 64),
      least: Math.min(...free.map(({ min_side }) => min_side ?? 8), most),
      mostHeight: Math.min(most, this.limits.max_height),
      mostWidth: Math.min(most, this.limits.max_width),
    };
  }

  /** The LoRAs that are configured; one that fits any instance fits the model. */
  get loras() {
    /** @type {Map<string, Lora>} */
    const found = new Map();
    for (const lora of this.known.flatMap(({ lora_facts }) => lora_facts)) {
      if (!found.has(lora.name) || !lora.why_not) found.set(lora.name, lora);
    }
    return [...found.values()];
  }

  /** Scheduler classes, the model's own first. */
  get schedulers() {
    return [...new Set(this.known.flatMap(({ schedulers }) => schedulers))];
  }

  /** What else can be asked for as one: usual names, and those of the presets. */
  get schedulerNames() {
    const usual = this.known.flatMap(({ scheduler_names }) => scheduler_names);
    const ofPresets = this.presets.filter(({ why_not }) => !why_not).map(({ fields }) => fields.scheduler);
    return [...new Set([...usual, ...ofPresets.filter(Boolean)])].sort();
  }

  /** Whether guidance is a second run with the negative prompt, beside the model's own. */
  get hasTrueGuidance() {
    return this.known.some(({ cannot }) => !("true_cfg_scale" in cannot));
  }

  /**
   * Why a task or field is of no use with this model; empty if it is.
   * @param {string} name
   * @returns {string}
   */
  whyNot(name) {
    const reasons = this.known.map(({ cannot }) => cannot[name] ?? "");
    return reasons.every(Boolean) ? (reasons[0] ?? "") : "";
  }
}
