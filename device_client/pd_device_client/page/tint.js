// @ts-check
/** Who made which part of a text. */

import { element } from "./dom.js";

/** @typedef {import("./answer.js").Run} Run */
/** @typedef {import("./answer.js").Origin} Origin */

/** Who made the character at a place of the text. */
export class Tint {
  /** @param {Run[]} runs */
  constructor(runs) {
    this._runs = runs;
  }

  /**
   * Changes when a part of the text is tinted otherwise: by where its runs begin.
   * @param {number} start
   * @param {number} end
   */
  keyOf(start, end) {
    return this._runs.filter((run) => run.start < end && run.end > start)
      .map((run) => `${run.origin[0]}${Math.max(run.start, start)}`).join(",");
  }

  /** @param {number} at */
  _run(at) {
    return this._runs.find((run) => at >= run.start && at < run.end) ?? this._runs.at(-1);
  }

  /**
   * Who made a line of text, its end included, in their order.
   * @param {import("./markdown.js").Line} line
   * @returns {Origin[]}
   */
  makers(line) {
    const end = line.at + Math.max(line.text.length, 1);
    const made = this._runs.filter((run) => run.start < end && run.end > line.at).map((run) => run.origin);
    return made.filter((origin, i) => origin !== made[i - 1]);
  }

  /**
   * Append characters, a span for each maker.
   * @param {HTMLElement} target
   * @param {string} text
   * @param {(i: number) => number} at where character i stood
   */
  append(target, text, at) {
    let start = 0;
    while (start < text.length) {
      const run = this._run(at(start));
      let end = start + 1;
      while (end < text.length && this._run(at(end)) === run) end += 1;
      const part = text.slice(start, end);
      target.append(run ? element("span", { class: `by-${run.origin}` }, part) : part);
      start = end;
    }
  }
}
