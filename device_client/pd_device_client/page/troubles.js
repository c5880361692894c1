// @ts-check
/** What went wrong on the way: a sentence for each side, and the details for who wants them. */

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Failure} Failure */
/** @typedef {{words: string, details: string[]}} Trouble a sentence, and what lies behind it */

const BUSY = ["queue_full", "request_expired", "not_ready", "shutting_down"];
const KEY = ["cloud_authentication_failed", "invalid_api_key"];
const LOST = ["cloud_unavailable", "cloud_timeout"];

/**
 * What failed and was mended, or was known before.
 * @param {Answer} answer
 * @returns {Trouble[]}
 */
export function troubles(answer) {
  const cloud = answer.failures.filter((failure) => failure.side === "cloud");
  const device = answer.failures.filter((failure) => failure.side === "device");
  const found = noted(answer);
  if (cloud.length > 0) found.push({ words: cloudWords(answer, cloud), details: messages(cloud) });
  if (device.length > 0) found.push({ words: deviceWords(answer), details: messages(device) });
  return found;
}

/**
 * Why an answer is incomplete.
 * @param {Error & {code?: string | null}} error
 * @returns {Trouble}
 */
export function failure(error) {
  const code = error.code ?? "";
  const words = code === "both_engines_failed" ? "Neither the cloud nor this device could go on."
    : LOST.includes(code) ? "The cloud cannot be reached, and only it could answer."
    : code === "cloud_authentication_failed" ? "The cloud does not accept this device's key."
    : "";
  return words ? { words, details: [error.message] } : { words: error.message, details: [] };
}

/**
 * What the plan says beside itself. The mode that it chose is told with the plan.
 * @param {Answer} answer
 * @returns {Trouble[]}
 */
function noted(answer) {
  /** @type {string[]} */
  const notes = (answer.plan?.notes ?? []).filter((/** @type {string} */ note) => note !== answer.plan?.words);
  const details = [...new Set(notes.map(sentence))];
  /** @type {Record<string, string>} */
  const alone = {
    "cloud-only": "This device could not take part; the cloud answers alone.",
    "device-only": "The cloud could not take part; this device answers alone.",
  };
  // What is kept here is no trouble, but the reader is to know that nothing was sent.
  const kept = answer.plan?.privacy?.words;
  if (kept) return details.map((note) => ({ words: note, details: [] }));
  const words = alone[answer.plan?.mode];
  // A promise that is broken for want of the other side is no trouble of its own.
  const ofSides = notes.some((note) => !(answer.plan?.broken ?? []).includes(note));
  return words && ofSides ? [{ words, details }] : details.map((note) => ({ words: note, details: [] }));
}

/**
 * @param {Answer} answer
 * @param {Failure[]} failures of the cloud
 */
function cloudWords(answer, failures) {
  const last = /** @type {Failure} */ (failures.at(-1));
  const begun = last.arrivals > 0;
  const what = begun ? "The cloud broke off"
    : BUSY.includes(last.code) ? "The cloud had no room"
    : KEY.includes(last.code) ? "The cloud does not accept this device's key"
    : "The cloud did not answer";
  if (answer.arrivals.length > last.arrivals) return `${what}, and came back.`;
  const byDevice = answer.tokens.at(-1)?.origin === "device";
  if (byDevice) return `${what}; this device ${begun ? "went on" : "answers alone"}.`;
  return answer.ended || last.final ? `${what}.` : `${what}; it is asked again.`;
}

/** @param {Answer} answer */
function deviceWords(answer) {
  const cloudGoesOn = answer.tokens.at(-1)?.origin === "cloud";
  return cloudGoesOn ? "This device could not go on; the cloud did." : "This device could not go on.";
}

/**
 * Each message once: a cloud that is tried three times fails three times.
 * @param {Failure[]} failures
 */
function messages(failures) {
  return [...new Set(failures.map(({ message }) => sentence(message)))];
}

/** @param {string} words */
function sentence(words) {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}${/[.!?]$/.test(words) ? "" : "."}`;
}
