// @ts-check
/** The timeline of an answer: what came from the cloud, what the device did, what was shown. */

import { button, setAttributes, svgElement } from "./dom.js";
import { axis, closeUp, Place } from "./timeline_place.js";
import { box, dots, inside, label, line, note, ticks } from "./timeline_shapes.js";
import { counted, seconds } from "./words.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Pass} Pass */

const LEAST_S = 1;
const LEAST_PASS_PX = 3;

/** Draws itself anew from an answer; cheap enough for every frame. */
export class Timeline {
  /** @param {number} [leastS] seconds that the width stands for at the beginning */
  constructor(leastS = LEAST_S) {
    this._leastS = leastS;
    this.element = /** @type {SVGSVGElement} */ (svgElement("svg", { class: "timeline", role: "img" }));
    /** Of a long answer: shows a part of it closely, or all of it again. */
    this.zoom = button("", () => this._toggleZoom());
    this.zoom.className = "zoom";
    this.zoom.hidden = true;
    this._close = false;
    this._width = 0;
    /** @type {Answer | null} */
    this._answer = null;
    this._spanS = leastS;
    new ResizeObserver((entries) => {
      this._width = Math.floor(entries[0].contentRect.width);
      if (this._answer) this.draw(this._answer);
    }).observe(this.element);
  }

  /** @param {Answer} answer */
  draw(answer) {
    if (this._answer !== answer) [this._close, this._spanS] = [false, this._leastS];
    this._answer = answer;
    const near = answer.ended ? closeUp(answer) : null;
    this.zoom.hidden = near === null;
    const words = this._close ? "Show the whole answer" : (near?.name ?? "");
    if (this.zoom.textContent !== words) this.zoom.textContent = words;
    if (this._width < 40) return;
    const span = this._close && near ? near.span : { fromS: 0, toS: this._wholeS(answer) };
    const place = new Place(this._width, span);
    this.element.style.height = `${place.height}px`;
    setAttributes(this.element, { viewBox: `0 0 ${place.width} ${place.height}` });
    this.element.replaceChildren(
      ...axis(place), ...labels(place), ...planned(place, answer), ...cloudLane(place, answer),
      ...deviceLane(place, answer), ...shownLane(place, answer), ...seam(place, answer),
    );
  }

  _toggleZoom() {
    this._close = !this._close;
    if (this._answer) this.draw(this._answer);
  }

  /**
   * How many seconds the width stands for: grows in steps ahead of an answer that is under way, so
   * that what is drawn does not creep.
   * @param {Answer} answer
   */
  _wholeS(answer) {
    const nowS = Math.max(answer.nowS, LEAST_S);
    if (answer.ended) return nowS * 1.02;
    if (nowS > this._spanS * 0.96) this._spanS = nowS * 1.5;
    const readyS = answer.plan?.mode === "cloud-only" ? 0 : (answer.plan?.ready_s ?? 0);
    return Math.max(this._spanS, readyS * 1.25);
  }
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
 * When the plan expects the device to be ready.
 * @param {Place} place
 * @param {Answer} answer
 */
function planned(place, answer) {
  const { plan } = answer;
  if (!plan || plan.mode === "cloud-only" || !plan.ready_s || !place.sees(0, plan.ready_s)) return [];
  const [x1, x2] = [place.x(0), place.x(plan.ready_s)];
  return [box("planned", x1, place.device - 9, x2 - x1, 18)];
}

/**
 * The cloud is busy from the question to its last token: that is what is saved by handing over.
 * @param {Place} place
 * @param {Answer} answer
 */
function cloudLane(place, answer) {
  const y = place.cloud;
  if (answer.asked === 0) return answer.plan ? [note(place, y, place.left + 4, "not asked")] : [];
  const cutS = answer.cutOff ? answer.failures.filter(({ side }) => side === "cloud").at(-1)?.atS : undefined;
  if (cutS !== undefined && answer.arrivals.length === 0) return [note(place, y, place.left + 4, "did not answer")];
  const freeS = cutS ?? cloudFreeS(answer);
  const busyS = freeS ?? answer.nowS;
  const [start, end] = [place.x(0), place.x(busyS)];
  /** @type {Element[]} */
  const drawn = place.sees(0, busyS) ? [box("busy cloud", start, y - 9, Math.max(end - start, 2), 18)] : [];
  drawn.push(...ticks(place, "cloud", answer.arrivals));
  const then = cutS === undefined ? "free" : "broke off";
  if (freeS !== null) drawn.push(note(place, y, end + 7, `${then} after ${seconds(freeS)}`));
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
  const prompt = (answer.plan?.prompt_tokens ?? 0) - answer.leftOutTokens;
  const claimS = answer.claim?.atS ?? Number.POSITIVE_INFINITY;
  const reading = answer.passes.filter((pass) => pass.fed <= prompt);
  const later = answer.passes.filter((pass) => pass.fed > prompt);
  const absorbed = later.filter((pass) => pass.count > 1 || pass.endS < claimS);
  const made = later.filter((pass) => pass.count <= 1 && pass.endS >= claimS);
  const drawn = [];
  if (answer.passes.length === 0 && answer.plan) {
    const words = answer.plan.mode === "cloud-only" ? "not needed" : waitingWords(answer);
    drawn.push(note(place, y, place.left + 4, words));
  }
  drawn.push(...bars(place, "prefill", reading), ...bars(place, "absorb", absorbed));
  drawn.push(...ticks(place, "device", made.map(({ endS, count }) => ({ atS: endS, count }))));
  const readTo = reading.at(-1)?.endS;
  if (readTo !== undefined) {
    drawn.push(...inside(place.x(reading[0].startS), place.x(readTo), y, "device", `reads ${counted(prompt, "token")}`));
  }
  return drawn;
}

/**
 * A bar for each pass; those too short to be seen by themselves are joined.
 * @param {Place} place
 * @param {string} kind
 * @param {Pass[]} passes
 */
function bars(place, kind, passes) {
  /** @type {{x1: number, x2: number}[]} */
  const found = [];
  for (const { startS, endS } of passes) {
    if (!place.sees(startS, endS)) continue;
    const [x1, x2] = [place.x(startS), place.x(endS)];
    const last = found.at(-1);
    if (last && x1 - last.x2 < LEAST_PASS_PX && x2 - x1 < LEAST_PASS_PX) last.x2 = x2;
    else found.push({ x1, x2 });
  }
  return found.map(({ x1, x2 }) => box(`pass ${kind}`, x1, place.device - 9, Math.max(x2 - x1 - 1, 1.5), 18));
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
  return ["cloud", "device"].map((side) =>
    dots(place, side, answer.tokens.filter((token) => token.origin === side)));
}

/**
 * The handoff, once it has shown: from when the device claimed to the first token that it showed. Who
 * goes on because the other side broke off was handed nothing.
 * @param {Place} place
 * @param {Answer} answer
 */
function seam(place, answer) {
  const { handoff } = answer;
  if (handoff === null || !place.sees(handoff.atS, handoff.token.atS)) return [];
  const x = place.x(handoff.atS);
  const drawn = [line("seam", x, place.device - 13, x, place.device + 9)];
  const free = !place.narrow || x > place.left + 52; // of the lane's name
  if (free) drawn.push(line("seam", x, place.device + 9, place.x(handoff.token.atS), place.shown - 5));
  const end = x > place.right - 70;
  // Beside the lane's own name, where that stands above the lane.
  const from = place.narrow ? Math.max(x + 5, place.left + 52) : x + 5;
  const words = answer.cutOff ? "goes on" : "handoff";
  drawn.push(label("seam-name", end ? x - 5 : from, place.device - 12, words, end ? "end" : "start"));
  return drawn;
}
