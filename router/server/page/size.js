// Sizes: aspect ratios and presets from what a model can make. Pure.

/** @typedef {{width: number, height: number}} Size */
/** @typedef {Size & {label: string}} Preset */
/** @typedef {{name: string, value: number, presets: Preset[]}} Ratio `value` is width over height */

const NAMED = ["1:1", "16:9", "9:16", "4:3", "3:4"];
const AREAS = { S: 0.5, M: 1, L: 2 }; // over the model's own, as the service has them

/**
 * The ratios that a model can make, each with its presets; one without presets cannot be made.
 * @param {import("./model.js").Model} model
 * @returns {Ratio[]}
 */
export function ratiosOf({ sizes, profiles }) {
  const ratios = NAMED.map((name) => {
    const presets = sizes.filter(({ ratio }) => ratio === name);
    return {
      name,
      value: valueOf(name),
      presets: presets.map(({ preset, ...size }) => ({ ...size, label: preset })),
    };
  });
  const left = (profiles ?? []).filter((profile) => !sizes.some((size) => isSame(size, profile)));
  for (const { width, height } of left) add(ratios, { width, height });
  return ratios.map((ratio) => ({ ...ratio, presets: distinct(ratio.presets) }));
}

/**
 * Presets for a picture's own ratio.
 * @param {import("./model.js").Model} model one that takes any size
 * @param {number} ratio
 * @returns {Preset[]}
 */
export function presetsOf(model, ratio) {
  const { width, height } = model.defaults;
  if (!width || !height) return [];
  const presets = Object.entries(AREAS).map(([label, area]) => ({
    label,
    ...sized(model, ratio, Math.sqrt(width * height * area)),
  }));
  return distinct(presets);
}

/**
 * A fixed size that has no preset, under the name of its own ratio.
 * @param {Ratio[]} ratios
 * @param {Size} size
 */
function add(ratios, { width, height }) {
  const name = nameOf(width, height);
  let ratio = ratios.find((known) => known.name === name);
  if (!ratio) ratios.push((ratio = { name, value: width / height, presets: [] }));
  ratio.presets.push({ label: `${width}`, width, height });
}

/**
 * Without those that are another one's size, the model's own preset before its neighbours.
 * @param {Preset[]} presets
 */
function distinct(presets) {
  return presets.filter((preset) => {
    const same = presets.filter((other) => isSame(other, preset));
    return preset === (same.find(({ label }) => label === "M") ?? same[0]);
  });
}

/**
 * @param {Size} one
 * @param {Size} other
 */
function isSame(one, other) {
  return one.width === other.width && one.height === other.height;
}

/**
 * An allowed size of about `side` squared pixels: true to the ratio first, then to the area.
 * @param {import("./model.js").Model} model
 * @param {number} ratio
 * @param {number} side
 * @returns {Size}
 */
function sized(model, ratio, side) {
  const { multiple, least, mostHeight, mostWidth } = model.sides;
  const scale = Math.min(1, mostWidth / (side * Math.sqrt(ratio)), mostHeight / (side / Math.sqrt(ratio)));
  const wanted = side * scale * Math.sqrt(ratio);
  const sizes = [-2, -1, 0, 1, 2].map((steps) => {
    const width = near(wanted + steps * multiple, multiple, least, mostWidth);
    return { width, height: near(width / ratio, multiple, least, mostHeight) };
  });
  const error = (/** @type {Size} */ { width, height }) =>
    Math.abs(Math.log(width / height / ratio)) + Math.abs(Math.log(width / wanted)) / 8;
  return sizes.reduce((best, next) => (error(next) < error(best) ? next : best));
}

/**
 * @param {number} side
 * @param {number} multiple
 * @param {number} least
 * @param {number} most
 */
export function near(side, multiple, least, most) {
  const low = Math.ceil(least / multiple) * multiple;
  const high = Math.floor(most / multiple) * multiple;
  return Math.max(low, Math.min(high, Math.round(side / multiple) * multiple));
}

/** @param {string} name such as `16:9` */
function valueOf(name) {
  const [width, height] = name.split(":").map(Number);
  return width / height;
}

/**
 * @param {number} width
 * @param {number} height
 */
function nameOf(width, height) {
  let [one, other] = [width, height];
  while (other) [one, other] = [other, one % other];
  return `${width / one}:${height / one}`;
}
