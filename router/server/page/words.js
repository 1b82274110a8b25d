// Words: numbers and facts as people read them.

const PLURAL = new Intl.PluralRules("en");
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });
const UNITS = /** @type {const} */ ([
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
]);

/**
 * @param {number} count
 * @param {string} noun in the singular
 */
export function counted(count, noun) {
  if (PLURAL.select(count) === "one") return `${count} ${noun}`;
  return `${count} ${noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}s`}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(seconds < 0.1 ? 2 : 1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** @param {number} milliseconds since the epoch */
export function ago(milliseconds) {
  const seconds = (Date.now() - milliseconds) / 1000;
  const [unit, size] = UNITS.find(([, size]) => seconds >= size) ?? ["minute", 0];
  return size ? RELATIVE.format(-Math.floor(seconds / size), unit) : "just now";
}

/** @param {number} bytes */
export function bytes(bytes) {
  const megabytes = bytes / 1024 ** 2;
  if (megabytes < 1) return `${Math.ceil(bytes / 1024)} kB`;
  return megabytes < 10 ? `${megabytes.toFixed(1)} MB` : `${Math.round(megabytes)} MB`;
}

/**
 * Seconds from the request to the pictures, as the service measured them.
 * @param {import("./job.js").Facts} facts
 */
export function totalSeconds({ timings }) {
  return Object.values(timings).reduce((sum, seconds) => sum + seconds, 0);
}

/**
 * One line: who made it, how long it took, and from what.
 * @param {import("./store.js").Run} run
 */
export function summary({ facts, fields }) {
  const asked = { ...fields, ...facts?.parameters };
  const served = facts ? [facts.instance, duration(totalSeconds(facts))] : [fields.model];
  return [
    ...served,
    asked.width && `${asked.width} × ${asked.height}`,
    asked.num_inference_steps && counted(asked.num_inference_steps, "step"),
    asked.guidance_scale != null && `guidance ${asked.guidance_scale}`,
    howNear(asked) || (asked.strength != null && `strength ${asked.strength}`),
    asked.seed != null && `seed ${asked.seed}`,
  ].filter(Boolean);
}

/**
 * What becomes of the picture it starts from, where that is no question of strength.
 * @param {Record<string, any>} asked
 */
function howNear({ scale, exact_copy }) {
  if (scale) return `${scale} times as large`;
  return exact_copy ? "exact copy" : "";
}

/**
 * Every fact of one picture, by its name.
 * @param {import("./store.js").Run} run
 * @param {number} seed
 * @returns {[string, string][]}
 */
export function details({ facts, fields }, seed) {
  const asked = { ...fields, ...facts?.parameters };
  const stages = Object.entries(facts?.timings ?? {}).filter(([, seconds]) => seconds >= 0.005);
  /** @type {[string, unknown][]} */
  const rows = [
    ["Became", facts?.enhancement?.prompt],
    ["Negative prompt", asked.negative_prompt],
    ["Model", asked.model],
    ["Made by", facts && facts.instance],
    ["Took", facts && duration(totalSeconds(facts))],
    [
      "Of which",
      stages.length > 1 &&
        stages.map(([name, seconds]) => `${name.replace(/_s$/, "")} ${duration(seconds)}`).join(", "),
    ],
    ["Size", `${asked.width} × ${asked.height}`],
    ["Steps", asked.num_inference_steps],
    ["Guidance", asked.guidance_scale],
    ["True guidance", asked.true_cfg_scale],
    ["Reference", howNear(asked)],
    ["Strength", asked.strength],
    ["Preset", asked.preset],
    ["Scheduler", asked.scheduler],
    ["LoRAs", asked.loras?.map(({ name, weight }) => `${name} (${weight})`).join(", ")],
    ["Seed", seed],
  ];
  return rows
    .filter(([, value]) => value != null && value !== "" && value !== false)
    .map(([name, value]) => [name, `${value}`]);
}

/**
 * @param {import("./store.js").Run} run
 * @param {number} seed
 * @param {Blob} blob
 */
export function fileName({ fields }, seed, { type }) {
  const slug =
    `${fields.prompt ?? ""}`
      .toLowerCase()
      .match(/[\p{L}\p{N}]+/gu)
      ?.join("-")
      .slice(0, 48) ?? "picture";
  return `${slug}-${seed}.${type.split("/")[1] || "png"}`;
}
