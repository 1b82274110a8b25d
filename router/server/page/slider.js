// Sliders: each moves the number it stands below, and follows it.

import { byId } from "./element.js";

/** A number and its slider. */
export class Slider {
  /** @param {HTMLInputElement} range with the number's id in `data-of` */
  constructor(range) {
    this.range = range;
    this.number = byId(range.dataset.of ?? "", HTMLInputElement);
    range.addEventListener("input", () => {
      this.number.value = range.value;
      this.#paint();
      this.number.dispatchEvent(new Event("input", { bubbles: true }));
    });
    this.number.addEventListener("input", () => this.follow());
  }

  /**
   * @param {number} most that may be typed
   * @param {number} reach how far the slider goes
   */
  limit(most, reach) {
    this.number.max = `${most}`;
    const { min, step } = this.number;
    Object.assign(this.range, { min, step, max: `${Math.min(most, reach)}` });
    this.follow();
  }

  /** Shows the number. */
  follow() {
    if (!this.number.validity.badInput && this.number.value !== "") this.range.value = this.number.value;
    this.#paint();
  }

  #paint() {
    const { min, max, value } = this.range;
    const part = (Number(value) - Number(min)) / (Number(max) - Number(min) || 1);
    this.range.style.setProperty("--part", `${part * 100}%`);
  }
}
