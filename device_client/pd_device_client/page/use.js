// @ts-check
/** What this browser has used: counted here, whoever else uses the device. */

import { confirming } from "./confirm_button.js";
import { byId, element } from "./dom.js";
import { counted } from "./words.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {{answers: number, handedOver: number, shown: number, cloud: number}} Counts */

const STORED_AS = "pd-device.use";
/** @type {Counts} */
const NONE = { answers: 0, handedOver: 0, shown: 0, cloud: 0 };

/** Counts answers, and shows the counts below the text field and in the settings. */
export class Use {
  constructor() {
    this._counts = load() ?? NONE;
    confirming(byId("reset-use", HTMLButtonElement), {
      words: () => "Count from zero",
      sure: () => "Forget these counts?",
      confirmed: () => this._set(NONE),
    });
    window.addEventListener("storage", (event) => {
      if (event.key !== null && event.key !== STORED_AS) return;
      this._counts = load() ?? NONE;
      this._show();
    });
    this._show();
  }

  /** @param {Answer} answer that has ended, however; nothing shown is nothing used */
  add(answer) {
    const shown = answer.tokens.length;
    const cloud = answer.cloudTokensMade;
    if (shown === 0 && cloud === 0) return;
    const before = load() ?? this._counts; // another page may have counted meanwhile
    this._set({
      answers: before.answers + 1,
      handedOver: before.handedOver + Number(answer.handoff !== null),
      shown: before.shown + shown,
      cloud: before.cloud + cloud,
    });
  }

  /** @param {Counts} counts */
  _set(counts) {
    this._counts = counts;
    try {
      localStorage.setItem(STORED_AS, JSON.stringify(counts));
    } catch {
      // The browser keeps nothing; the counts hold until the page is closed.
    }
    this._show();
  }

  _show() {
    const { answers, handedOver, shown, cloud } = this._counts;
    const saved = Math.max(shown - cloud, 0);
    byId("saved", HTMLElement).textContent = shown === 0 ? ""
      : `${saved.toLocaleString("en")} of your ${counted(shown, "token")} needed no cloud`;
    /** @type {[string, number][]} */
    const rows = [
      ["Answers", answers], ["Handed over", handedOver], ["Tokens shown", shown],
      ["Tokens the cloud made", cloud], ["Cloud tokens saved", saved],
    ];
    byId("totals", HTMLDListElement).replaceChildren(...rows.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, value.toLocaleString("en")))));
  }
}

/** @returns {Counts | null} null: nothing is stored, or something else wrote it */
function load() {
  try {
    const { answers, handedOver, shown, cloud } = JSON.parse(localStorage.getItem(STORED_AS) ?? "null");
    const whole = [answers, handedOver, shown, cloud].every((value) => Number.isSafeInteger(value) && value >= 0);
    return whole ? { answers, handedOver, shown, cloud } : null;
  } catch {
    return null;
  }
}
