// @ts-check
/** The line above the text field that says why nothing can be sent, wherever the page is scrolled to. */

import { byId } from "./dom.js";

/** @typedef {import("./api.js").Json} Json */

const MENTIONED_MS = 10_000;

/** @type {Record<string, string>} */
const STATES = {
  failed: "The model could not be loaded; the log of pd-device says why.",
  loading: "The model is being loaded. Your text stays here meanwhile.",
  waking: "The model is being loaded again. Your text stays here meanwhile.",
  closed: "This device is closing. Your text stays here.",
};

/** Shows one sentence, or nothing. */
export class Notice {
  /** @param {(words: string) => void} say tells those who do not see it */
  constructor(say) {
    this._say = say;
    this._line = byId("notice", HTMLElement);
    this._words = "";
    this._mentioned = "";
    this._gone = false;
  }

  /**
   * @param {Json | null} known the device's state
   * @param {string} problem why it is not known
   * @param {boolean} gone whether the device is not there at all
   */
  show(known, problem, gone) {
    if (this._gone && !gone) this._say("This device answers again.");
    this._gone = gone;
    this._words = gone ? `${problem} Your text stays here.`
      : known === null ? problem
      : known.serving ? "" : (STATES[known.state] ?? "This device cannot answer yet. Your text stays here.");
    this._line.classList.toggle("waits", known !== null && known.state !== "failed");
    this._write();
  }

  /** Say it again: something was to be sent, and cannot be. */
  insist() {
    this._say(this._words || "This device cannot answer yet. Your text stays here.");
    this._line.classList.remove("insists");
    void this._line.offsetWidth; // begins the movement anew
    this._line.classList.add("insists");
  }

  /** Say something else for a while. @param {string} words */
  mention(words) {
    this._mentioned = words;
    this._write();
    setTimeout(() => {
      this._mentioned = "";
      this._write();
    }, MENTIONED_MS);
  }

  _write() {
    const words = this._words || this._mentioned;
    this._line.hidden = words === "";
    if (this._line.textContent !== words) this._line.textContent = words;
  }
}
