// Source: the picture to start from; dropped, pasted, chosen, or taken from an earlier run.

import { base64 } from "./base64.js";
import { byId } from "./element.js";
import { accept, refuse } from "./field.js";
import { Mask } from "./mask.js";
import { nameOf } from "./size.js";

/** @typedef {import("./size.js").Size} Size */

const TYPES = ["image/png", "image/jpeg", "image/webp"];
const SHOWN = 720; // pixels of the longer side on the page

/** The picture, the mask over it, and how it is fitted to the size that is made. */
export class Source {
  /** @type {Blob | null} */
  #blob = null;
  /** @type {ImageBitmap | null} */
  #bitmap = null;
  /** @type {Size} */
  #size = { width: 1, height: 1 };
  #isOff = false;
  #onChange;

  /** @param {(ratio: string) => unknown} onChange called with another picture's ratio, empty for none */
  constructor(onChange) {
    this.#onChange = onChange;
    this.mask = new Mask(() => this.#tell());
    this.field = byId("source", HTMLFieldSetElement);
    this.file = byId("source-file", HTMLInputElement);
    this.canvas = byId("source-picture", HTMLCanvasElement);
    this.file.addEventListener("change", () => this.#takeFirst(this.file.files));
    byId("source-remove", HTMLButtonElement).addEventListener("click", () => this.remove());
    document.addEventListener("paste", ({ clipboardData }) => {
      const isText = clipboardData?.types.includes("text/plain"); // with a picture of itself, from some editors
      if (!isText) this.#takeFirst(clipboardData?.files);
    });
    document.addEventListener("dragover", (event) => this.#onDrag(event));
    document.addEventListener("dragleave", (event) => event.relatedTarget || this.#light(false));
    document.addEventListener("drop", (event) => this.#onDrop(event));
  }

  /** @returns {import("./store.js").Source | null} */
  get kept() {
    return this.#blob && { image: this.#blob, mask: this.mask.strokes };
  }

  get isThere() {
    return this.#bitmap !== null;
  }

  get hasMask() {
    return this.isThere && this.mask.isPainted;
  }

  /** @param {boolean} off whether the model cannot start from a picture */
  set isOff(off) {
    this.#isOff = off;
    if (off && this.isThere) this.remove();
  }

  /**
   * @param {Blob} blob
   * @param {import("./mask.js").Stroke[]} strokes
   */
  async take(blob, strokes = []) {
    accept();
    try {
      this.#bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    } catch {
      refuse("image", "That is no picture that this browser can read; choose a PNG, JPEG or WebP file.");
      return;
    }
    this.#blob = blob;
    this.#show();
    this.mask.set(strokes);
    await this.#onChange(nameOf(this.#bitmap.width, this.#bitmap.height));
  }

  remove() {
    this.#blob = this.#bitmap = null;
    this.file.value = "";
    this.#show();
    this.mask.set([]);
    this.#onChange("");
    this.file.focus();
  }

  /**
   * Fits the picture to the size that will be made: it fills it, and what stands over is cut off.
   * @param {Size} size
   */
  fit(size) {
    if (!size.width || !size.height) return;
    if (size.width === this.#size.width && size.height === this.#size.height) return;
    this.#size = size;
    this.#show();
  }

  /**
   * What the request carries, as base64.
   * @returns {Promise<{image?: string, mask_image?: string}>}
   */
  async pictures() {
    if (!this.#bitmap) return {};
    const { width, height } = this.#size;
    const canvas = new OffscreenCanvas(width, height);
    this.#draw(canvas);
    const image = await textOf(canvas);
    if (!this.hasMask) return { image };
    return {
      image,
      mask_image: await textOf(this.mask.picture(width, height, this.#placement(width, height))),
    };
  }

  /**
   * The same, blank: for asking who could serve.
   * @returns {Promise<{image?: string, mask_image?: string}>}
   */
  async blanks() {
    if (!this.#bitmap) return {};
    const { width, height } = this.#size;
    const canvas = new OffscreenCanvas(width, height);
    canvas.getContext("2d", { alpha: false });
    const image = await textOf(canvas);
    return this.hasMask ? { image, mask_image: image } : { image };
  }

  #show() {
    byId("drop", HTMLElement).hidden = this.isThere;
    byId("chosen", HTMLElement).hidden = !this.isThere;
    if (!this.#bitmap) return;
    const { width, height } = this.#size;
    const zoom = SHOWN / Math.max(width, height);
    Object.assign(this.canvas, { width: Math.round(width * zoom), height: Math.round(height * zoom) });
    this.#draw(this.canvas);
    this.mask.fit(
      this.canvas.width,
      this.canvas.height,
      this.#placement(this.canvas.width, this.canvas.height),
    );
    this.#note();
  }

  #note() {
    if (!this.#bitmap) return;
    const { width, height } = this.#bitmap;
    const isCut = Math.abs(Math.log(width / height / (this.#size.width / this.#size.height))) > 0.02;
    const isSame = width === this.#size.width && height === this.#size.height;
    const how = isSame
      ? ""
      : `, fitted to ${this.#size.width} × ${this.#size.height}${isCut ? " and cut at the edges" : ""}`;
    byId("source-note", HTMLElement).textContent = `${width} × ${height}${how}`;
  }

  /** @param {HTMLCanvasElement | OffscreenCanvas} canvas */
  #draw(canvas) {
    const context = /** @type {HTMLCanvasElement} */ (canvas).getContext("2d");
    if (!context || !this.#bitmap) return;
    const { scale, x, y } = this.#placement(canvas.width, canvas.height);
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.#bitmap, x, y, this.#bitmap.width * scale, this.#bitmap.height * scale);
  }

  /**
   * Where the picture lies in a frame that it fills.
   * @param {number} width
   * @param {number} height
   * @returns {import("./mask.js").Placement}
   */
  #placement(width, height) {
    if (!this.#bitmap) return { scale: 1, x: 0, y: 0 };
    const scale = Math.max(width / this.#bitmap.width, height / this.#bitmap.height);
    return {
      scale,
      x: (width - this.#bitmap.width * scale) / 2,
      y: (height - this.#bitmap.height * scale) / 2,
    };
  }

  #tell() {
    this.field.dispatchEvent(new Event("change", { bubbles: true }));
  }

  /** @param {FileList | null | undefined} files */
  #takeFirst(files) {
    const file = [...(files ?? [])].find(({ type }) => TYPES.includes(type)) ?? files?.[0];
    if (!file || document.querySelector("dialog[open]")) return;
    if (this.#isOff) refuse("image", "This model cannot start from a picture; choose another model.");
    else this.take(file);
  }

  /** @param {DragEvent} event */
  #onDrag(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    this.#light(true);
  }

  /** @param {DragEvent} event */
  #onDrop(event) {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    this.#light(false);
    this.#takeFirst(event.dataTransfer.files);
  }

  /** @param {boolean} on */
  #light(on) {
    this.field.classList.toggle("aimed", on);
  }
}

/** @param {OffscreenCanvas} canvas */
async function textOf(canvas) {
  return base64(await canvas.convertToBlob({ type: "image/png" }));
}
