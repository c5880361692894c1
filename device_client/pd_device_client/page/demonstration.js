// @ts-check
/** The start page's little answer: made up, but drawn by what draws the real ones. */

import { Answer } from "./answer.js";
import { byId } from "./dom.js";
import { RichText } from "./rich_text.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./api.js").Json} Json */

const WORDS = ("The cloud begins this sentence at once, and this device, which has read your text meanwhile, " +
  "carries it on to its end.").split(/(?= )/);
const PROMPT_TOKENS = 900;
const CLOUD_TOKENS = 7;
const FIRST_S = 0.35;
const CLOUD_STEP_S = 0.06;
const CHUNKS = 5;
const CHUNK_S = 0.28;
const READY_S = CHUNKS * CHUNK_S + 0.2;
const DEVICE_STEP_S = 0.13;
const PACE_S = 0.2;
const END_S = FIRST_S + 0.05 + (WORDS.length - 1) * PACE_S + 0.2;
const SPAN_S = END_S / 0.95;

/** Plays once and then rests; again when asked to. */
export class Demonstration {
  constructor() {
    this._figure = byId("example-run", HTMLElement);
    this._rich = new RichText(byId("example-said", HTMLElement));
    this._steps = [...byId("example-steps", HTMLOListElement).children];
    this._timeline = new Timeline(SPAN_S);
    this._timeline.element.setAttribute("aria-label",
      "Timeline. An example: the cloud makes the first words, this device reads meanwhile and goes on.");
    byId("example-timeline", HTMLElement).append(this._timeline.element);
    this._frame = 0;
    this._answer = new Answer();
    this._waiting = happenings();
    byId("example-play", HTMLButtonElement).addEventListener("click", () => this.play());
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this._showUntil(END_S);
    else this.play();
  }

  /** From the beginning. */
  play() {
    this.stop();
    this._answer = new Answer();
    this._waiting = happenings();
    const began = performance.now();
    const draw = () => {
      if (!this._showUntil((performance.now() - began) / 1000)) this._frame = requestAnimationFrame(draw);
    };
    draw();
  }

  stop() {
    cancelAnimationFrame(this._frame);
  }

  /**
   * @param {number} nowS
   * @returns {boolean} whether that was the end
   */
  _showUntil(nowS) {
    while (this._waiting.length > 0 && this._waiting[0].atS <= nowS) {
      this._answer.apply(/** @type {{chunk: Json}} */ (this._waiting.shift()).chunk);
    }
    const { text, runs, ended } = this._answer;
    this._rich.show(text, runs, "plain");
    this._timeline.draw(this._answer);
    const step = ended ? -1 : nowS < FIRST_S + CLOUD_TOKENS * CLOUD_STEP_S ? 0 : nowS < READY_S ? 1 : 2;
    this._steps.forEach((item, i) => item.classList.toggle("now", i === step));
    this._figure.classList.toggle("playing", !ended);
    return ended;
  }
}

/** @returns {{atS: number, chunk: Json}[]} what a device would tell, in order */
function happenings() {
  /** @type {{atS: number, chunk: Json}[]} */
  const all = [];
  /** @param {number} atS @param {Json} event */
  const tell = (atS, event) => all.push({ atS, chunk: { pd: { at_s: atS, ...event } } });
  tell(0, {
    event: "plan", mode: "pd-device", prompt_tokens: PROMPT_TOKENS, cloud_tokens: CLOUD_TOKENS, pace_s: PACE_S,
    ready_s: READY_S, notes: [],
  });
  tell(0, { event: "cloud_asked", cloud_tokens: CLOUD_TOKENS });
  tell(0, { event: "device_began", cached_tokens: 0 });
  for (let i = 0; i < CLOUD_TOKENS; i += 1) {
    tell(FIRST_S + i * CLOUD_STEP_S, { event: "cloud_tokens", position: i, num_tokens: 1 });
  }
  for (let i = 1; i <= CHUNKS; i += 1) {
    const fed = (i / CHUNKS) * PROMPT_TOKENS;
    tell(i * CHUNK_S, { event: "device_pass", fed_tokens: fed, num_tokens: PROMPT_TOKENS / CHUNKS, seconds: CHUNK_S });
  }
  const caughtUp = PROMPT_TOKENS + CLOUD_TOKENS;
  tell(READY_S - 0.05, { event: "device_pass", fed_tokens: caughtUp, num_tokens: CLOUD_TOKENS, seconds: 0.15 });
  tell(READY_S, { event: "handoff", position: CLOUD_TOKENS });
  for (let i = CLOUD_TOKENS; i < WORDS.length; i += 1) {
    const atS = READY_S + (i - CLOUD_TOKENS + 1) * DEVICE_STEP_S;
    tell(atS, { event: "device_pass", fed_tokens: PROMPT_TOKENS + i + 1, num_tokens: 1, seconds: DEVICE_STEP_S });
  }
  WORDS.forEach((content, position) => {
    const atS = FIRST_S + 0.05 + position * PACE_S;
    const origin = position < CLOUD_TOKENS ? "cloud" : "device";
    all.push({ atS, chunk: { choices: [{ delta: { content }, pd: { at_s: atS, position, origin } }] } });
  });
  all.sort((a, b) => a.atS - b.atS);
  all.push({ atS: END_S, chunk: { choices: [{ delta: {}, finish_reason: "stop" }] } });
  return all;
}
