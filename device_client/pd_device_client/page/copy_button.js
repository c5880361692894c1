// @ts-check
/** A button that copies a text and says whether it could. */

import { element } from "./dom.js";

const TOLD_MS = 1500;

/** The button; its words change for a moment when it was pressed. */
export class CopyButton {
  /**
   * @param {string} words on it
   * @param {() => string} text what is to be copied
   */
  constructor(words, text) {
    this._words = words;
    this.element = element("button", { type: "button", class: "copy" }, words);
    this.element.addEventListener("click", () => this._copy(text()));
  }

  /** @param {string} text */
  async _copy(text) {
    let told = "Copied";
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      told = "Not allowed"; // by the browser, or on a page that is not from this machine
    }
    this.element.textContent = told;
    setTimeout(() => {
      this.element.textContent = this._words;
    }, TOLD_MS);
  }
}
