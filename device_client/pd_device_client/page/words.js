// @ts-check
/** A plan and what became of it, in words. */

/** @typedef {import("./answer.js").Answer} Answer */

/** @type {Record<string, string>} */
const EXACTNESS = {
  identical: "the same, whichever side makes it",
  consistent: "may depend on the handoff",
  text: "the cloud's text, continued by this device's model",
  refined: "from a part of the prompt, after the handoff",
};

/** @param {number} value */
export function seconds(value) {
  // The unit stays on the number's line.
  return `${value.toFixed(value < 0.995 ? 2 : 1)}\u00a0s`;
}

/**
 * @param {number} count
 * @param {string} noun
 */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * What the device says, as a sentence; the unit stays on the number's line.
 * @param {string} words
 */
function sentence(words) {
  const end = words.endsWith(".") ? "" : ".";
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${end}`.replace(/(\d) s\b/g, "$1\u00a0s");
}

/**
 * What has become of it.
 * @param {Answer} answer
 * @returns {string}
 */
export function courseWords(answer) {
  if (answer.told) return answer.told.course;
  const before = answer.replanned || answer.plan?.words;
  if (!answer.ended) return before ? sentence(before) : "Asking.";
  const shown = answer.tokens.length;
  const cloud = answer.tokens.filter((token) => token.origin === "cloud").length;
  const ending = endWords(answer);
  if (shown === 0) return `Nothing was shown. ${ending}`.trim();
  const all = counted(shown, "token");
  if (cloud === 0) return `This device made all ${all}. ${ending}`.trim();
  const handed = handoffWords(answer);
  if (cloud === shown && !handed) return `The cloud made all ${all}. ${ending}`.trim();
  const then = answer.cutOff ? "before it broke off" : `and was free after ${seconds(answer.arrivals.at(-1)?.atS ?? 0)}`;
  return `The cloud made ${cloud.toLocaleString("en")} of ${all} ${then}. ${handed} ${ending}`.replace(/ +/g, " ").trim();
}

/** @param {Answer} answer */
function handoffWords(answer) {
  const { handoff } = answer;
  if (handoff === null) return "";
  const gapS = handoff.token.atS - answer.tokens[handoff.number - 2].atS;
  const paceS = answer.plan?.pace_s ?? gapS;
  const how = gapS <= 1.5 * paceS ? "without a seam" : `after a gap of ${seconds(gapS)}`;
  const back = answer.tokens.findLastIndex((token, i) =>
    token.origin === "cloud" && answer.tokens[i - 1]?.origin === "device");
  const again = back < 0 ? "" : `, and the cloud again from token ${(back + 1).toLocaleString("en")}`;
  return `This device went on from token ${handoff.number.toLocaleString("en")} ${how}${again}.`;
}

/** @param {Answer} answer */
function endWords(answer) {
  if (answer.phase === "stopped") return "You stopped it.";
  if (answer.phase === "failed") return "";
  if (answer.finishReason === "length") return "It ended at the longest length allowed.";
  return "";
}

/**
 * Whether the prompt left this device, and why or why not.
 * @param {import("./api.js").Json} report
 */
function sentWords({ privacy, cloud }) {
  return cloud.sent ? `the prompt: ${cloud.words}` : `nothing: ${privacy.words ?? cloud.words}`;
}

/**
 * The figures of an answer; those that are not measurable are left out.
 * @param {Answer} answer
 * @returns {[string, string][]}
 */
export function figures(answer) {
  const { tokens, report } = answer;
  if (answer.told) return answer.told.figures;
  /** @type {[string, string][]} */
  const found = [];
  if (tokens.length > 0) found.push(["First token", seconds(tokens[0].atS)]);
  const gaps = tokens.slice(1).map((token, i) => token.atS - tokens[i].atS);
  if (gaps.length > 0) found.push(["Largest gap", seconds(gaps.reduce((a, b) => Math.max(a, b)))]);
  if (report?.handoff_gap_s != null) found.push(["Gap at the handoff", seconds(report.handoff_gap_s)]);
  const cloud = tokens.filter((token) => token.origin === "cloud").length;
  found.push(["From the cloud", counted(cloud, "token")]);
  found.push(["From this device", counted(tokens.length - cloud, "token")]);
  const made = (report?.cloud_tokens_generated ?? 0) + (report?.device_tokens_generated ?? 0);
  if (made > tokens.length) found.push(["Made for nothing", counted(made - tokens.length, "token")]);
  if (answer.cachedTokens > 0) found.push(["Read before", counted(answer.cachedTokens, "token")]);
  if (answer.plan?.mode === "pd-device") {
    found.push(["Planned from the cloud", counted(answer.plan.cloud_tokens, "token")]);
  }
  if (report) {
    if (report.cloud) found.push(["Left this device", sentWords(report)]);
    if (report.cloud?.cost != null) found.push(["Cost of the cloud", report.cloud.cost.toPrecision(3)]);
    found.push(["Text", EXACTNESS[report.exactness] ?? EXACTNESS.consistent]);
    if (report.left_out_tokens > 0) found.push(["Not read here", counted(report.left_out_tokens, "token")]);
    found.push(["Seed", String(report.seed)]);
  }
  return found;
}
