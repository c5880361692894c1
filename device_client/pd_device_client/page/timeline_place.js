// @ts-check
/** Which part of an answer's time a timeline shows, and where things are on it. */

import { label, line } from "./timeline_shapes.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {{fromS: number, toS: number}} Span seconds from submit */

const NARROW_PX = 480;
const STEPS_S = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600];
const LONG = 3; // so many times as long as what can be looked at closely

/** Where things are, in pixels. */
export class Place {
  /**
   * @param {number} width
   * @param {Span} span
   */
  constructor(width, span) {
    this.narrow = width < NARROW_PX;
    this.width = width;
    this.span = span;
    this.left = this.narrow ? 4 : 68;
    this.right = width - 8;
    const step = this.narrow ? 42 : 36;
    const first = this.narrow ? 28 : 14;
    this.cloud = first;
    this.device = first + step;
    this.shown = first + 2 * step;
    this.axis = this.shown + 18;
    this.height = this.axis + 18;
  }

  /** @param {number} atS outside of the span: its edge */
  x(atS) {
    const { fromS, toS } = this.span;
    const along = Math.min(Math.max((atS - fromS) / (toS - fromS), 0), 1);
    return Math.round((this.left + along * (this.right - this.left)) * 10) / 10;
  }

  /**
   * Whether anything of a stretch of time is to be seen.
   * @param {number} startS
   * @param {number} [endS]
   */
  sees(startS, endS = startS) {
    return endS >= this.span.fromS && startS <= this.span.toS;
  }
}

/**
 * What can be looked at closely in a long answer: its handoff, or else its beginning.
 * @param {Answer} answer that has ended
 * @returns {{name: string, span: Span} | null} null: the whole answer is close enough
 */
export function closeUp(answer) {
  const wholeS = answer.nowS;
  const { handoff } = answer;
  const atS = handoff?.token.atS ?? answer.tokens[0]?.atS ?? 0;
  const marginS = Math.max(wholeS * 0.08, 1);
  const early = atS <= 2 * marginS;
  const span = early
    ? { fromS: 0, toS: Math.max(2 * atS, 1) }
    : { fromS: Math.min(handoff?.atS ?? atS, atS) - marginS, toS: atS + marginS };
  if (wholeS < LONG * (span.toS - span.fromS)) return null;
  return { name: handoff ? "Zoom to where hands change" : "Zoom to the beginning", span };
}

/** @param {Place} place */
export function axis(place) {
  const { fromS, toS } = place.span;
  const room = (place.right - place.left) / (place.narrow ? 56 : 76);
  const step = STEPS_S.find((candidate) => (toS - fromS) / candidate <= room) ?? (toS - fromS) / 4;
  const drawn = [line("axis", place.left, place.axis, place.right, place.axis)];
  for (let i = Math.ceil(fromS / step); i * step <= toS; i += 1) {
    const x = place.x(i * step);
    drawn.push(line("axis", x, place.axis, x, place.axis + 4));
    const anchor = i === 0 ? "start" : x > place.right - 12 ? "end" : "middle";
    const words = i === 0 ? "0 s" : String(Number((i * step).toFixed(2)));
    drawn.push(label("tick", x, place.axis + 15, words, anchor));
  }
  return drawn;
}
