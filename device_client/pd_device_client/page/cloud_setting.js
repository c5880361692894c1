// @ts-check
/** Which cloud the device uses: the device's own setting, for all who use it. */

import { byId } from "./dom.js";

/** @typedef {import("./api.js").Json} Json */

/** The field with the cloud's address. */
export class CloudSetting {
  /**
   * @param {import("./api.js").Api} api
   * @param {() => void} onChange called when another cloud was chosen
   */
  constructor(api, onChange) {
    this._api = api;
    this._onChange = onChange;
    this._field = byId("cloud-choice", HTMLInputElement);
    this._problem = byId("cloud-problem", HTMLElement);
    /** The address in use. */
    this._used = "";
    /**
     * What the device has just refused: leaving the field then asks no second time.
     * @type {string | null}
     */
    this._refused = null;
    this._choosing = false;
    this._sheet = byId("settings", HTMLDialogElement);
    this._sheet.addEventListener("close", () => this._reset());
    this._field.addEventListener("change", () => {
      if (this._field.value.trim() !== this._refused) this._choose();
    });
    this._field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault(); // else the sheet closes, and what is wrong is not seen
      this._choose();
    });
  }

  /** @param {Json | undefined} cloud as the device tells of it */
  show(cloud) {
    const edited = this._field.value.trim() !== this._used;
    this._used = cloud?.address ?? "";
    this._field.disabled = cloud?.settable !== true;
    // What is being typed, or was refused, stays to be mended.
    if (!edited && document.activeElement !== this._field) this._field.value = this._used;
  }

  async _choose() {
    const wanted = this._field.value.trim();
    if (this._choosing || wanted === this._used) return this._tell(this._choosing ? "asking" : "");
    this._choosing = true;
    this._tell("asking");
    try {
      await this._api.chooseCloud(wanted === "" ? null : wanted);
      this._used = this._field.value = wanted;
      this._refused = null;
      this._tell("");
    } catch (error) {
      this._refused = wanted;
      this._tell(error instanceof Error ? error.message : String(error));
    }
    this._choosing = false;
    if (!this._sheet.open) this._reset();
    this._onChange();
  }

  /** What is not in use must not stand there as if it were. */
  _reset() {
    this._field.value = this._used;
    this._refused = null;
    if (!this._choosing) this._tell("");
  }

  /** @param {string} words */
  _tell(words) {
    this._problem.textContent = words;
    this._problem.hidden = words === "";
  }
}
