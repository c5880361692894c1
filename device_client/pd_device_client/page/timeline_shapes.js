// @ts-check
/** The shapes that a timeline is drawn with. */

import { svgElement } from "./dom.js";

/** @typedef {import("./timeline_place.js").Place} Place */
/** @typedef {{x1: number, x2: number, count: number}} Crowd marks that cannot be told apart, from x1 to x2 */

const TICK_APART_PX = 2.5;
const DOT_APART_PX = 5;
const LETTER_PX = 6.6;

/**
 * @param {string} kind
 * @param {number} x1
 * @param {number} y1
 * @param {number} x2
 * @param {number} y2
 */
export function line(kind, x1, y1, x2, y2) {
  return svgElement("path", { class: kind, d: `M${x1} ${y1}L${x2} ${y2}` });
}

/**
 * @param {string} kind
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
export function box(kind, x, y, width, height) {
  return svgElement("rect", { class: kind, x, y, width: Math.max(Math.round(width * 10) / 10, 0), height, rx: 3 });
}

/**
 * @param {string} kind
 * @param {number} x
 * @param {number} y
 * @param {string} words
 * @param {"start" | "middle" | "end"} [anchor]
 */
export function label(kind, x, y, words, anchor = "start") {
  return svgElement("text", { class: kind, x, y, "text-anchor": anchor }, words);
}

/**
 * A remark on a lane, where there is room for it.
 * @param {Place} place
 * @param {number} y
 * @param {number} x
 * @param {string} words
 */
export function note(place, y, x, words) {
  const fits = x + words.length * LETTER_PX < place.right;
  return label("note", x, y + 4, fits ? words : "");
}

/**
 * Words inside a box, where they fit.
 * @param {number} x1
 * @param {number} x2
 * @param {number} y
 * @param {string} kind
 * @param {string} words
 * @returns {Element[]}
 */
export function inside(x1, x2, y, kind, words) {
  return x2 - x1 > words.length * LETTER_PX + 12 ? [label(`in-pass ${kind}`, x1 + 7, y + 4, words)] : [];
}

/**
 * A tick for each token; tokens too close to be told apart become a bar that says how many.
 * @param {Place} place
 * @param {"cloud" | "device"} side
 * @param {{atS: number, count: number}[]} tokens
 */
export function ticks(place, side, tokens) {
  const y = place[side];
  const found = crowds(place, tokens, TICK_APART_PX);
  const alone = found.filter(({ x1, x2 }) => x1 === x2);
  const bars = found.filter(({ x1, x2 }) => x1 !== x2);
  return [
    svgElement("path", { class: `marks ${side}`, d: alone.map(({ x1 }) => `M${x1} ${y - 7}v14`).join("") }),
    ...bars.flatMap(({ x1, x2, count }) => [
      box(`many ${side}`, x1 - 0.75, y - 7, x2 - x1 + 1.5, 14),
      ...inside(x1, x2, y, side, `${count.toLocaleString("en")} tokens`),
    ]),
  ];
}

/**
 * A dot for each token, where they touch a line.
 * @param {Place} place
 * @param {string} side
 * @param {{atS: number}[]} tokens
 */
export function dots(place, side, tokens) {
  const found = crowds(place, tokens.map(({ atS }) => ({ atS, count: 1 })), DOT_APART_PX);
  const drawn = found.map(({ x1, x2 }) => `M${x1} ${place.shown}H${x2}`).join("");
  return svgElement("path", { class: `dots ${side}`, d: drawn });
}

/**
 * Marks that stand so close that they would run into each other: an answer of thousands of tokens
 * is drawn with no more shapes than there are pixels.
 * @param {Place} place
 * @param {{atS: number, count: number}[]} marks in order of time
 * @param {number} apartPx
 * @returns {Crowd[]}
 */
function crowds(place, marks, apartPx) {
  /** @type {Crowd[]} */
  const found = [];
  for (const { atS, count } of marks) {
    if (!place.sees(atS)) continue;
    const x = place.x(atS);
    const last = found.at(-1);
    if (last && x - last.x2 < apartPx) {
      last.x2 = x;
      last.count += count;
    } else {
      found.push({ x1: x, x2: x, count });
    }
  }
  return found;
}
