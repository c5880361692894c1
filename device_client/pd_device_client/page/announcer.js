// @ts-check
/** What a screen reader says while an answer comes: whole sentences, never single tokens. */

import { element } from "./dom.js";

const SENTENCE = /[.!?:;](?=\s)|\n/g;
const KEPT = 12;

/** Adds to a polite live region. */
export class Announcer {
  /** @param {HTMLElement} region */
  constructor(region) {
    this._region = region;
    this._said = 0;
  }

  /** @param {string} words */
  say(words) {
    if (!words.trim()) return;
    this._region.append(element("p", {}, words.trim()));
    while (this._region.childElementCount > KEPT) this._region.firstElementChild?.remove();
  }

  begin() {
    this._said = 0;
    this.say("The answer begins.");
  }

  /**
   * Say the sentences that are complete.
   * @param {string} text all so far
   */
  follow(text) {
    const ends = [...text.slice(this._said).matchAll(SENTENCE)];
    const last = ends.at(-1);
    if (!last) return;
    const end = this._said + last.index + 1;
    this.say(text.slice(this._said, end));
    this._said = end;
  }

  /**
   * @param {string} text
   * @param {string} words how it ended
   */
  end(text, words) {
    this.say(text.slice(this._said));
    this.say(words);
  }
}
