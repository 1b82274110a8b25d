// Instances: how each one of the chosen model is, and what it makes of the request as it stands.

import { byId, element, say } from "./element.js";
import { counted } from "./words.js";

/** @typedef {import("./model.js").Instance} Instance */

const STATES = /** @type {Record<string, string>} */ ({
  cold: "asleep; wakes when asked",
  loading: "loading",
  ready: "ready",
  unloading: "going to sleep",
  failed: "failed to load; tries again when asked",
});

/** Lists of instances: that of the model which is chosen, and that of all. */
export class Instances {
  #shown = new Map();

  /**
   * @param {string} id of the list
   * @param {readonly Instance[]} instances
   * @param {Record<string, string>} [rejections] instance -> why it cannot serve the request as it stands
   */
  show(id, instances, rejections = {}) {
    const key = JSON.stringify([instances, rejections]);
    if (key === this.#shown.get(id)) return;
    this.#shown.set(id, key);
    byId(id, HTMLUListElement).replaceChildren(
      ...instances.map((instance) => item(instance, rejections[instance.name])),
    );
  }
}

/**
 * @param {Instance} instance
 * @param {string | undefined} rejection
 */
function item(instance, rejection) {
  const made = element("li", { className: kindOf(instance) });
  made.append(element("b", {}, instance.name), " ", element("span", {}, wordsOf(instance)));
  const why = instance.error || (rejection && `Not for this request: ${rejection}`);
  if (why) {
    const line = element("small");
    say(line, why.replace(`${instance.name}: `, ""));
    made.append(line);
  }
  return made;
}

/** @param {Instance} instance */
function kindOf({ error, state, breaker }) {
  if (error || breaker === "open") return "bad";
  return state === "ready" ? "good" : "idle";
}

/** @param {Instance} instance */
function wordsOf({ error, state, breaker, running, waiting }) {
  if (error) return "cannot serve";
  if (breaker === "open") return "failed lately; left alone for a while";
  const load = [running && `${running} running`, waiting && `${waiting} waiting`].filter(Boolean).join(", ");
  return [STATES[state] ?? state, load].filter(Boolean).join(" · ");
}

/**
 * The whole service in one line.
 * @param {readonly Instance[]} instances of all models
 */
export function serviceLine(instances) {
  const bad = instances.filter((instance) => kindOf(instance) === "bad").length;
  const running = instances.reduce((sum, { running }) => sum + running, 0);
  const parts = [
    counted(instances.length - bad, "instance"),
    bad && `${bad} out of order`,
    running && `${running} running`,
  ];
  return parts.filter(Boolean).join(" · ");
}
