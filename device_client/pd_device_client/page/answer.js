// @ts-check
/** One answer as it becomes: text with its makers, and what both sides did when. */

/** @typedef {import("./api.js").Json} Json */
/** @typedef {"cloud" | "device"} Origin */
/** @typedef {{origin: Origin, start: number, end: number}} Run characters start .. end of the text */
/** @typedef {{position: number, origin: Origin, atS: number}} Token one that was shown */
/** @typedef {{position: number, count: number, atS: number}} Arrival tokens that came from the cloud */
/** @typedef {{startS: number, endS: number, fed: number, count: number}} Pass of the device */
/** @typedef {{position: number, atS: number}} Claim from there on only the device commits */
/** @typedef {{token: Token, number: number, atS: number}} Handoff where the device went on: its first
 * token, the number of it from 1, and when the device had claimed it */
/**
 * @typedef {object} Failure of a side, which may have been mended since
 * @property {Origin} side
 * @property {string} message in full
 * @property {string} code
 * @property {boolean} final whether the side is not tried again
 * @property {number} arrivals messages of the cloud before it
 * @property {number} atS
 */
/** @typedef {{course: string, figures: [string, string][], staysHere?: boolean}} Told what is left of an answer
 * that was kept */
/** @typedef {"waiting" | "streaming" | "done" | "stopped" | "failed"} Phase */

/** Filled by `apply`, chunk by chunk; everything else only reads it. */
export class Answer {
  constructor() {
    /** @type {Phase} */
    this.phase = "waiting";
    this.text = "";
    /** What the model thought before it answered. */
    this.thoughts = "";
    /** @type {Run[]} */
    this.runs = [];
    /** @type {Token[]} */
    this.tokens = [];
    /** @type {Arrival[]} */
    this.arrivals = [];
    /** @type {Pass[]} */
    this.passes = [];
    /** @type {Claim[]} in order; the last one stands unless it was given back */
    this.claims = [];
    this.claimReturned = false;
    /** @type {Json | null} the last one told: a plan can be revised on the way */
    this.plan = null;
    /** @type {Json | null} the final figures */
    this.report = null;
    /** @type {string} why it ended */
    this.finishReason = "";
    /** Positions below this one were asked of the cloud. */
    this.asked = 0;
    /** @type {number | null} when the device's turn at its engine came */
    this.deviceBeganS = null;
    this.cachedTokens = 0;
    /** Tokens of the prompt that the device does not read. */
    this.leftOutTokens = 0;
    /** @type {Failure[]} */
    this.failures = [];
    /** @type {Told | null} of an answer out of the browser's store: its events are gone */
    this.told = null;
    /** What has become of the plan, in words; "" while it holds. */
    this.replanned = "";
    /** @type {Error | null} why it is incomplete */
    this.error = null;
    this._lastS = 0;
    this._lastAt = performance.now();
  }

  /** The handoff that stands, or null. */
  get claim() {
    return this.claimReturned ? null : (this.claims.at(-1) ?? null);
  }

  /**
   * Where the device went on with what the cloud had begun; null while nothing of it was shown. A
   * claim alone is no handoff: the device may have been first, or the answer over.
   * @returns {Handoff | null}
   */
  get handoff() {
    const { tokens } = this;
    const at = tokens.findIndex((token, i) =>
      token.origin === "device" && tokens[i - 1]?.origin === "cloud");
    if (at < 0) return null;
    const token = tokens[at];
    const claimed = this.claims.filter((claim) => claim.position <= token.position && claim.atS <= token.atS);
    return { token, number: at + 1, atS: claimed.at(-1)?.atS ?? token.atS };
  }

  /** Whether the cloud failed and did not come back. */
  get cutOff() {
    return this.failures.some(({ side, arrivals }) => side === "cloud" && arrivals === this.arrivals.length);
  }

  /** Tokens that the cloud made, those that nobody needed included, as far as it is known. */
  get cloudTokensMade() {
    return this.report?.cloud_tokens_generated ?? this.arrivals.reduce((sum, { count }) => sum + count, 0);
  }

  /** Seconds from submit until now, or until the end. */
  get nowS() {
    if (this.phase !== "streaming") return this._lastS;
    return this._lastS + (performance.now() - this._lastAt) / 1000;
  }

  /** Whether the device said that nothing of it may leave the device. */
  get staysHere() {
    return this.told?.staysHere ?? this.plan?.privacy?.local_only ?? false;
  }

  get ended() {
    return this.phase === "done" || this.phase === "stopped" || this.phase === "failed";
  }

  /**
   * Take in a chunk of the stream.
   * @param {Json} chunk
   */
  apply(chunk) {
    this.phase = "streaming";
    if (chunk.pd?.event) this._happened(chunk.pd);
    const choice = chunk.choices?.[0];
    if (!choice) return;
    this.thoughts += choice.delta?.reasoning ?? "";
    if (choice.finish_reason) {
      this.finishReason = choice.finish_reason;
      this.report = choice.pd ?? null;
      this.phase = "done";
    } else if (choice.pd) {
      this._shown(choice.pd, choice.delta?.content ?? "");
    }
  }

  /**
   * What is left of an answer that was kept.
   * @param {{text: string, runs: Run[], error: string, told: Told}} kept
   */
  static restored({ text, runs, error, told }) {
    const answer = new Answer();
    Object.assign(answer, { text, runs, told, phase: error ? "failed" : "done" });
    answer.error = error ? new Error(error) : null;
    return answer;
  }

  /**
   * End it before its time.
   * @param {Error | null} error null: the reader stopped it
   */
  end(error) {
    this._lastS = this.nowS;
    this.phase = error === null ? "stopped" : "failed";
    this.error = error;
  }

  /**
   * @param {Json} token
   * @param {string} text
   */
  _shown(token, text) {
    this._at(token.at_s);
    this.tokens.push({ position: token.position, origin: token.origin, atS: token.at_s });
    if (!text) return;
    const start = this.text.length;
    this.text += text;
    const last = this.runs.at(-1);
    if (last && last.origin === token.origin) last.end = this.text.length;
    else this.runs.push({ origin: token.origin, start, end: this.text.length });
  }

  /** @param {Json} event */
  _happened(event) {
    this._at(event.at_s);
    const atS = event.at_s;
    switch (event.event) {
      case "plan":
        this.plan = { ...this.plan, ...event };
        this.replanned = "";
        break;
      case "replan":
        this.replanned = event.why;
        break;
      case "cloud_asked":
        this.asked = event.cloud_tokens;
        break;
      case "cloud_tokens":
        this.arrivals.push({ position: event.position, count: event.num_tokens, atS });
        break;
      case "device_began":
        this.deviceBeganS = atS;
        this.cachedTokens = event.cached_tokens;
        break;
      case "prompt_refined":
        this.leftOutTokens = event.left_out_tokens;
        break;
      case "device_pass":
        this.passes.push({
          startS: Math.max(atS - event.seconds, 0), endS: atS,
          fed: event.fed_tokens, count: event.num_tokens,
        });
        break;
      case "handoff":
        this.claims.push({ position: event.position, atS });
        this.claimReturned = false;
        break;
      case "handoff_undone":
        this.claimReturned = true;
        break;
      case "cloud_failed":
        this._failed("cloud", event, event.final);
        break;
      case "device_failed":
        this._failed("device", event, true);
        break;
    }
  }

  /**
   * @param {Origin} side
   * @param {Json} event
   * @param {boolean} final
   */
  _failed(side, event, final) {
    const { message, code, at_s: atS } = event;
    this.failures.push({ side, message, code, final, arrivals: this.arrivals.length, atS });
  }

  /** @param {number} seconds */
  _at(seconds) {
    this._lastS = Math.max(this._lastS, seconds);
    this._lastAt = performance.now();
  }
}
