// Loras: which of a model's LoRAs are applied, and how strongly.

import { byId, element } from "./element.js";

/** @typedef {import("./model.js").Lora} Lora */
/** @typedef {{name: string, weight: number}} Chosen */

const MOST = 100; // either way

/** A line for each LoRA: whether it is applied, and its weight. Hidden where the model has none. */
export class Loras {
  #place = byId("loras", HTMLFieldSetElement);
  #list = byId("lora-list", HTMLUListElement);
  #offered = "";

  /** @param {Lora[]} loras */
  offer(loras) {
    const offered = JSON.stringify(loras);
    if (offered === this.#offered) return;
    this.#offered = offered;
    const chosen = this.read();
    this.#place.hidden = loras.length === 0;
    this.#list.replaceChildren(...loras.map(lineOf));
    this.write(chosen);
  }

  /** @returns {Chosen[]} */
  read() {
    return this.#lines()
      .filter(({ applied }) => applied.checked)
      .map(({ applied, weight }) => ({ name: applied.value, weight: weight.valueAsNumber }));
  }

  /** @param {Chosen[]} chosen */
  write(chosen) {
    for (const { applied, weight } of this.#lines()) {
      const found = chosen.find(({ name }) => name === applied.value);
      applied.checked = found !== undefined && !applied.disabled;
      if (found) weight.value = `${found.weight}`;
    }
  }

  #lines() {
    return [...this.#list.children].map((line) => {
      const [applied, weight] = line.querySelectorAll("input");
      return { applied, weight };
    });
  }
}

/** @param {Lora} lora */
function lineOf({ name, family, why_not }) {
  const disabled = why_not !== "";
  const applied = element("input", { type: "checkbox", value: name, disabled });
  const weight = element("input", {
    type: "number",
    min: `${-MOST}`,
    max: `${MOST}`,
    step: "0.1",
    value: "1",
    ariaLabel: `Weight of ${name}`,
    disabled,
  });
  const line = element("li", {}, element("label", { className: "check" }, applied, name), weight);
  const about = disabled ? `Not here: it ${why_not}.` : family && `Made for ${family}.`;
  if (about) line.append(element("small", { className: "hint" }, about));
  weight.addEventListener("input", () => (applied.checked = true));
  return line;
}
