// Sizes: aspect ratios and presets, which the service reckons, in the order they are offered. Pure.

/** @typedef {{width: number, height: number}} Size */
/** @typedef {Size & {label: string}} Preset */
/** @typedef {{name: string, value: number, presets: Preset[]}} Ratio `value` is width over height */

const NAMED = ["1:1", "16:9", "9:16", "4:3", "3:4"];
export const OWN = "L"; // the model's own size

/**
 * The ratios that a model can make, each with its presets; one without presets cannot be made.
 * @param {import("./model.js").Model} model
 * @returns {Ratio[]}
 */
export function ratiosOf({ sizes, profiles }) {
  const ratios = NAMED.map((name) => {
    return { name, value: valueOf(name), presets: presetsOf(sizes.filter(({ ratio }) => ratio === name)) };
  });
  const left = (profiles ?? []).filter((profile) => !sizes.some((size) => isSame(size, profile)));
  for (const { width, height } of left) add(ratios, { width, height });
  return ratios.map((ratio) => ({ ...ratio, presets: distinct(ratio.presets) }));
}

/**
 * The service's sizes of one ratio as they are offered.
 * @param {(Size & {preset: string})[]} sizes
 * @returns {Preset[]}
 */
export function presetsOf(sizes) {
  return distinct(sizes.map(({ width, height, preset }) => ({ label: preset.toUpperCase(), width, height })));
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
    return preset === (same.find(({ label }) => label === OWN) ?? same[0]);
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
export function valueOf(name) {
  const [width, height] = name.split(":").map(Number);
  return width / height;
}

/**
 * The ratio of two sides, as `16:9`.
 * @param {number} width
 * @param {number} height
 */
export function nameOf(width, height) {
  let [one, other] = [width, height];
  while (other) [one, other] = [other, one % other];
  return `${width / one}:${height / one}`;
}
