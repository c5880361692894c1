// @ts-check
/** The timeline of an answer: what came from the cloud, what the device did, what was shown. */

import { setAttributes, svgElement } from "./dom.js";
import { seconds } from "./words.js";

/** @typedef {import("./answer.js").Answer} Answer */

const NARROW_PX = 480;
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
const LEAST_S = 1;

/** Draws itself anew from an answer; cheap enough for every frame. */
export class Timeline {
  constructor() {
    this.element = /** @type {SVGSVGElement} */ (svgElement("svg", { class: "timeline", role: "img" }));
    this._width = 0;
    /** @type {Answer | null} */
    this._answer = null;
    this._spanS = LEAST_S;
    new ResizeObserver((entries) => {
      this._width = Math.floor(entries[0].contentRect.width);
      if (this._answer) this.draw(this._answer);
    }).observe(this.element);
  }

  /** @param {Answer} answer */
  draw(answer) {
    this._answer = answer;
    if (this._width < 40) return;
    const place = new Place(this._width, this._span(answer));
    this.element.style.height = `${place.height}px`;
    setAttributes(this.element, { viewBox: `0 0 ${place.width} ${place.height}` });
    this.element.replaceChildren(
      ...axis(place), ...labels(place), ...planned(place, answer), ...cloudLane(place, answer),
      ...deviceLane(place, answer), ...shownLane(place, answer), ...seam(place, answer),
    );
  }

  /**
   * How many seconds the width stands for: grows in steps ahead of an answer that is under way, so
   * that what is drawn does not creep.
   * @param {Answer} answer
   */
  _span(answer) {
    const nowS = Math.max(answer.nowS, LEAST_S);
    if (answer.ended) return nowS * 1.02;
    if (nowS > this._spanS * 0.96) this._spanS = nowS * 1.5;
    const readyS = answer.plan?.mode === "cloud-only" ? 0 : (answer.plan?.ready_s ?? 0);
    return Math.max(this._spanS, readyS * 1.25);
  }
}

/** Where things are, in pixels. */
class Place {
  /**
   * @param {number} width
   * @param {number} spanS
   */
  constructor(width, spanS) {
    this.narrow = width < NARROW_PX;
    this.width = width;
    this.spanS = spanS;
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

  /** @param {number} atS */
  x(atS) {
    const along = Math.min(Math.max(atS / this.spanS, 0), 1);
    return round(this.left + along * (this.right - this.left));
  }
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 10) / 10;
}

/** @param {Place} place */
function axis(place) {
  const room = (place.right - place.left) / (place.narrow ? 56 : 76);
  const step = STEPS_S.find((candidate) => place.spanS / candidate <= room) ?? place.spanS / 4;
  const drawn = [line("axis", place.left, place.axis, place.right, place.axis)];
  for (let i = 0; i * step <= place.spanS; i += 1) {
    const x = place.x(i * step);
    drawn.push(line("axis", x, place.axis, x, place.axis + 4));
    const anchor = i === 0 ? "start" : x > place.right - 12 ? "end" : "middle";
    const words = i === 0 ? "0 s" : String(Number((i * step).toFixed(1)));
    drawn.push(label("tick", x, place.axis + 15, words, anchor));
  }
  return drawn;
}

/** @param {Place} place */
function labels(place) {
  /** @type {[string, number, string][]} */
  const lanes = [["Cloud", place.cloud, "cloud"], ["Device", place.device, "device"], ["Shown", place.shown, "shown"]];
  return lanes.flatMap(([words, y, name]) => [
    line(`lane ${name}`, place.left, y, place.right, y),
    label(`lane-name ${name}`, place.narrow ? place.left : 0, place.narrow ? y - 13 : y + 4, words),
  ]);
}

/**
 * Where the plan expects the device to be ready.
 * @param {Place} place
 * @param {Answer} answer
 */
function planned(place, answer) {
  const { plan } = answer;
  if (!plan || plan.mode === "cloud-only" || !plan.ready_s) return [];
  const x = place.x(plan.ready_s);
  return [box("planned", place.left, place.device - 9, x - place.left, 18)];
}

/**
 * The cloud is busy from the question to its last token: that is what is saved by handing over.
 * @param {Place} place
 * @param {Answer} answer
 */
function cloudLane(place, answer) {
  if (answer.asked === 0) return answer.plan ? [note(place, place.cloud, place.left + 4, "not asked")] : [];
  const y = place.cloud;
  const freeS = cloudFreeS(answer);
  const end = place.x(freeS ?? answer.nowS);
  const ticks = answer.arrivals.map(({ atS }) => `M${place.x(atS)} ${y - 7}v14`).join("");
  const drawn = [
    box("busy cloud", place.left, y - 9, Math.max(end - place.left, 2), 18),
    svgElement("path", { class: "marks cloud", d: ticks }),
  ];
  if (freeS !== null) drawn.push(note(place, y, end + 7, `free after ${seconds(freeS)}`));
  return drawn;
}

/**
 * When the cloud had made its last token for this answer; null while it is at work.
 * @param {Answer} answer
 */
function cloudFreeS(answer) {
  const lastS = answer.arrivals.at(-1)?.atS;
  if (!answer.ended && answer.claim === null) return null;
  return lastS ?? answer.claim?.atS ?? answer.nowS;
}

/**
 * @param {Place} place
 * @param {Answer} answer
 */
function deviceLane(place, answer) {
  const y = place.device;
  const prompt = answer.plan?.prompt_tokens ?? 0;
  const claimS = answer.claim?.atS ?? Number.POSITIVE_INFINITY;
  const reading = answer.passes.filter((pass) => pass.fed <= prompt);
  const later = answer.passes.filter((pass) => pass.fed > prompt);
  const absorbed = later.filter((pass) => pass.count > 1 || pass.endS < claimS);
  const made = later.filter((pass) => !absorbed.includes(pass));
  const drawn = [];
  if (answer.passes.length === 0 && answer.plan) {
    const words = answer.plan?.mode === "cloud-only" ? "not needed" : waitingWords(answer);
    drawn.push(note(place, y, place.left + 4, words));
  }
  drawn.push(...[...reading, ...absorbed].map((pass) => {
    const x = place.x(pass.startS);
    const kind = pass.fed <= prompt ? "prefill" : "absorb";
    return box(`pass ${kind}`, x, y - 9, Math.max(place.x(pass.endS) - x - 1, 1.5), 18);
  }));
  const ticks = made.map((pass) => `M${place.x(pass.endS)} ${y - 7}v14`).join("");
  drawn.push(svgElement("path", { class: "marks device", d: ticks }));
  const readTo = reading.at(-1)?.endS;
  if (readTo !== undefined) {
    const words = `reads ${prompt} tokens`;
    const wide = place.x(readTo) - place.x(reading[0].startS) > words.length * 6.6 + 12;
    if (wide) drawn.push(label("in-pass", place.x(reading[0].startS) + 7, y + 4, words));
  }
  return drawn;
}

/** @param {Answer} answer */
function waitingWords(answer) {
  if (answer.ended) return "took no part";
  return answer.deviceBeganS === null ? "waits for its turn" : "";
}

/**
 * @param {Place} place
 * @param {Answer} answer
 */
function shownLane(place, answer) {
  return ["cloud", "device"].map((origin) => {
    const mine = answer.tokens.filter((token) => token.origin === origin);
    const dots = mine.map(({ atS }) => `M${place.x(atS)} ${place.shown}h0`).join("");
    return svgElement("path", { class: `dots ${origin}`, d: dots });
  });
}

/**
 * The handoff: when the device claimed, and the first token that it showed.
 * @param {Place} place
 * @param {Answer} answer
 */
function seam(place, answer) {
  const { claim } = answer;
  if (claim === null || answer.arrivals.length === 0) return [];
  const x = place.x(claim.atS);
  const drawn = [line("seam", x, place.device - 13, x, place.device + 9)];
  const first = answer.tokens.find((token) => token.position >= claim.position);
  const free = !place.narrow || x > place.left + 52; // of the lane's name
  if (first && free) {
    drawn.push(line("seam", x, place.device + 9, place.x(first.atS), place.shown - 5));
  }
  const end = x > place.right - 70;
  // Beside the lane's own name, where that stands above the lane.
  const from = place.narrow ? Math.max(x + 5, place.left + 52) : x + 5;
  drawn.push(label("seam-name", end ? x - 5 : from, place.device - 12, "handoff", end ? "end" : "start"));
  return drawn;
}

/**
 * @param {string} kind
 * @param {number} x1
 * @param {number} y1
 * @param {number} x2
 * @param {number} y2
 */
function line(kind, x1, y1, x2, y2) {
  return svgElement("path", { class: kind, d: `M${x1} ${y1}L${x2} ${y2}` });
}

/**
 * @param {string} kind
 * @param {number} x
 * @param {number} y
 * @param {number} width
 * @param {number} height
 */
function box(kind, x, y, width, height) {
  return svgElement("rect", { class: kind, x, y, width: Math.max(round(width), 0), height, rx: 3 });
}

/**
 * @param {string} kind
 * @param {number} x
 * @param {number} y
 * @param {string} words
 * @param {"start" | "middle" | "end"} [anchor]
 */
function label(kind, x, y, words, anchor = "start") {
  return svgElement("text", { class: kind, x, y, "text-anchor": anchor }, words);
}

/**
 * A remark on a lane, where there is room for it.
 * @param {Place} place
 * @param {number} y
 * @param {number} x
 * @param {string} words
 */
function note(place, y, x, words) {
  const fits = x + words.length * 6.4 < place.right;
  return label("note", x, y + 4, fits ? words : "");
}
