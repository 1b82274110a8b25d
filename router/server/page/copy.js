// Copy: whether the picture to start from is asked for again, and what that leaves nothing to say about.

import { byId } from "./element.js";
import { disable } from "./field.js";

const WHY = "An exact copy settles it.";
const SETTLED = ["strength", "num_inference_steps", "true_cfg_scale", "enhance"];
const SETTLED_TOO = ["guidance_scale", "negative_prompt"]; // which the model may have no use for anyway

/** The box below the strength. */
export class Copy {
  constructor() {
    this.input = byId("exact_copy", HTMLInputElement);
  }

  /** @param {Record<string, any>} fields of an earlier run */
  take(fields) {
    this.input.checked = Boolean(fields.exact_copy);
  }

  /**
   * Goes last of all that switches fields on and off.
   * @param {boolean} isThere whether there is a picture
   */
  settle(isThere) {
    const isOn = isThere && this.input.checked;
    for (const name of SETTLED) disable(name, isOn ? WHY : "");
    if (isOn) for (const name of SETTLED_TOO) disable(name, WHY);
  }
}
