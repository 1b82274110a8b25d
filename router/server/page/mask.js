// Mask: what is painted over the picture to start from, by mouse, pen, finger or keys.

import { byId } from "./element.js";

/**
 * @typedef {object} Stroke in pixels of the picture, whatever the size it is shown in
 * @property {boolean} erases
 * @property {number} radius
 * @property {{x: number, y: number}[]} points
 *
 * @typedef {{scale: number, x: number, y: number}} Placement where the picture lies in the frame
 */

const STRIPE = 8; // pixels of the frame
const KEYS = new Map([
  ["ArrowLeft", [-1, 0]],
  ["ArrowRight", [1, 0]],
  ["ArrowUp", [0, -1]],
  ["ArrowDown", [0, 1]],
]);

/** The brush, its tools and its strokes. */
export class Mask {
  /** @type {Stroke[]} */
  #strokes = [];
  /** @type {Stroke | null} */
  #stroke = null;
  /** @type {Placement} */
  #placement = { scale: 1, x: 0, y: 0 };
  #erases = false;
  /** Of the brush that keys move, in pixels of the frame. */
  #cursor = { x: 0, y: 0 };
  #onChange;

  /** @param {() => void} onChange called when there is a mask, or none any more */
  constructor(onChange) {
    this.#onChange = onChange;
    this.canvas = byId("mask", HTMLCanvasElement);
    this.brush = byId("mask-size", HTMLInputElement);
    this.undo = byId("mask-undo", HTMLButtonElement);
    this.clear = byId("mask-clear", HTMLButtonElement);
    this.undo.addEventListener("click", () => this.set(this.#strokes.slice(0, -1)));
    this.clear.addEventListener("click", () => this.set([]));
    byId("mask-paint", HTMLButtonElement).addEventListener("click", () => this.#use(false));
    byId("mask-erase", HTMLButtonElement).addEventListener("click", () => this.#use(true));
    this.brush.addEventListener("input", () => this.#size());
    this.#size();
    this.canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => this.#end());
    this.canvas.addEventListener("keydown", (event) => this.#onKey(event));
    this.canvas.addEventListener("focus", () => this.draw());
    this.canvas.addEventListener("blur", () => this.draw());
  }

  get strokes() {
    return this.#strokes;
  }

  /** @param {boolean} off whether the model cannot paint within a mask */
  set isOff(off) {
    this.canvas.hidden = off;
  }

  /** Whether anything is painted; what was erased again may still count. */
  get isPainted() {
    return !this.canvas.hidden && this.#strokes.some((stroke) => !stroke.erases);
  }

  /** @param {Stroke[]} strokes */
  set(strokes) {
    this.#strokes = strokes;
    this.undo.disabled = this.clear.disabled = strokes.length === 0;
    this.draw();
    this.#onChange();
  }

  /**
   * Fits to the frame in which the picture is shown.
   * @param {number} width
   * @param {number} height
   * @param {Placement} placement
   */
  fit(width, height, placement) {
    Object.assign(this.canvas, { width, height });
    this.#cursor = { x: width / 2, y: height / 2 };
    this.#placement = placement;
    this.draw();
  }

  /** Shows the strokes, and the keys' brush while it is in use. */
  draw() {
    const context = this.#context(this.canvas);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    paint(context, this.#stroke ? [...this.#strokes, this.#stroke] : this.#strokes, this.#placement);
    this.#stripe(context);
    if (this.canvas.matches(":focus-visible")) this.#ring(context);
  }

  /**
   * The mask as a picture: white is made anew, black is kept.
   * @param {number} width
   * @param {number} height
   * @param {Placement} placement
   */
  picture(width, height, placement) {
    const canvas = new OffscreenCanvas(width, height);
    const context = this.#context(canvas);
    paint(context, this.#strokes, placement);
    context.globalCompositeOperation = "destination-over";
    context.fillStyle = "black";
    context.fillRect(0, 0, width, height);
    return canvas;
  }

  /**
   * Stripes of two colours, as they stand out from every picture.
   * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
   */
  #stripe(context) {
    const { width, height } = this.canvas;
    context.save();
    context.globalCompositeOperation = "source-in";
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "source-atop";
    context.strokeStyle = getComputedStyle(this.canvas).color;
    context.lineWidth = STRIPE;
    context.beginPath();
    for (let x = -height; x < width; x += 2.8 * STRIPE) {
      context.moveTo(x, height);
      context.lineTo(x + height, 0);
    }
    context.stroke();
    context.restore();
  }

  /**
   * Where the keys' brush is.
   * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
   */
  #ring(context) {
    context.beginPath();
    context.arc(this.#cursor.x, this.#cursor.y, this.#radius, 0, 2 * Math.PI);
    for (const [colour, width] of /** @type {const} */ ([
      ["white", 6],
      [getComputedStyle(this.canvas).color, 3],
    ])) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.stroke();
    }
  }

  /** In pixels of the frame. */
  get #radius() {
    return (this.brush.valueAsNumber / 200) * Math.min(this.canvas.width, this.canvas.height);
  }

  #size() {
    const { min, max, value } = this.brush;
    const part = (Number(value) - Number(min)) / (Number(max) - Number(min));
    this.brush.style.setProperty("--part", `${part * 100}%`);
  }

  /** @param {boolean} erases */
  #use(erases) {
    this.#erases = erases;
    byId("mask-paint", HTMLButtonElement).setAttribute("aria-pressed", `${!erases}`);
    byId("mask-erase", HTMLButtonElement).setAttribute("aria-pressed", `${erases}`);
  }

  /**
   * @param {HTMLCanvasElement | OffscreenCanvas} canvas
   * @returns {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D}
   */
  #context(canvas) {
    const context = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d");
    if (!context) throw new Error("this browser has no canvas");
    return context;
  }

  /** @param {PointerEvent} event */
  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#stroke = { erases: this.#erases, radius: this.#radius / this.#placement.scale, points: [] };
    this.#move(event);
  }

  /** @param {PointerEvent} event */
  #move({ offsetX, offsetY }) {
    if (!this.#stroke) return;
    const zoom = this.canvas.width / this.canvas.clientWidth;
    this.#stroke.points.push(this.#onPicture(offsetX * zoom, offsetY * zoom));
    this.draw();
  }

  #end() {
    if (!this.#stroke) return;
    const strokes = [...this.#strokes, this.#stroke];
    this.#stroke = null;
    this.set(strokes);
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const way = KEYS.get(event.key);
    if (way) {
      const step = this.#radius / 2;
      this.#cursor.x = clamped(this.#cursor.x + way[0] * step, this.canvas.width);
      this.#cursor.y = clamped(this.#cursor.y + way[1] * step, this.canvas.height);
      this.draw();
    } else if (event.key === " ") {
      const points = [this.#onPicture(this.#cursor.x, this.#cursor.y)];
      const radius = this.#radius / this.#placement.scale;
      this.set([...this.#strokes, { erases: this.#erases, radius, points }]);
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      this.set(this.#strokes.slice(0, -1));
    } else {
      return;
    }
    event.preventDefault();
  }

  /**
   * @param {number} x in the frame
   * @param {number} y
   */
  #onPicture(x, y) {
    const { scale, x: left, y: top } = this.#placement;
    return { x: (x - left) / scale, y: (y - top) / scale };
  }
}

/**
 * @param {CanvasRenderingContext2D | OffscreenCanvasRenderingContext2D} context
 * @param {Stroke[]} strokes
 * @param {Placement} placement
 */
function paint(context, strokes, { scale, x, y }) {
  context.save();
  context.setTransform(scale, 0, 0, scale, x, y);
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "white";
  for (const { erases, radius, points } of strokes) {
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    context.lineWidth = 2 * radius;
    context.beginPath();
    context.moveTo(points[0].x, points[0].y);
    for (const point of points) context.lineTo(point.x, point.y);
    context.stroke();
  }
  context.restore();
}

/**
 * @param {number} place
 * @param {number} most
 */
function clamped(place, most) {
  return Math.max(0, Math.min(most, place));
}
