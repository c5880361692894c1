// @ts-check
/** What stands within a line of Markdown: code, emphasis, links. Linear in the text's length. */

/** @typedef {import("./markdown.js").Line} Line */
/** @typedef {{text: string, at: number[]}} Source characters, and where each stood in the text */
/**
 * @typedef {{kind: "text", text: string, at: number[]}
 *   | {kind: "code", text: string, at: number[]}
 *   | {kind: "strong" | "em" | "del", inside: Inline[]}
 *   | {kind: "link", href: string, inside: Inline[]}
 *   | {kind: "break"}} Inline
 */

const ESCAPED = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const ADDRESS = /^https?:\/\/[^\s<>"'`\\]+/i;
const SAFE_ADDRESS = /^(?:https?:\/\/|mailto:)/i;
const MARKS = ["***", "**", "__", "~~", "*", "_"];
const MAX_DEPTH = 8;
const MAX_LABEL = 500;

/**
 * @param {Line[]} lines
 * @returns {Inline[]}
 */
export function parseInline(lines) {
  /** @type {Source} */
  const source = { text: "", at: [] };
  for (const [i, line] of lines.entries()) {
    const last = i === lines.length - 1;
    const text = last ? line.text.trimEnd() : line.text;
    const broken = !last && /( {2,}|\\)$/.test(text);
    const kept = broken ? text.replace(/( {2,}|\\)$/, "") : text.trimEnd();
    add(source, kept, line.at);
    // A broken line is marked by a character that no text has at this place.
    if (!last) add(source, broken ? "\u2028" : "\n", line.at + line.text.length);
  }
  return parse(source, 0);
}

/**
 * @param {Source} source
 * @param {string} text
 * @param {number} at
 */
function add(source, text, at) {
  source.text += text;
  for (let i = 0; i < text.length; i += 1) source.at.push(at + i);
}

/**
 * @param {Source} source
 * @param {number} depth
 * @returns {Inline[]}
 */
function parse(source, depth) {
  const { text } = source;
  /** @type {Inline[]} */
  const nodes = [];
  /** Marks without a second one further on: not looked for again. @type {Set<string>} */
  const dead = new Set();
  let plain = 0;
  let i = 0;
  /** @param {number} end */
  const flush = (end) => {
    if (end > plain) nodes.push({ kind: "text", ...part(source, plain, end) });
  };
  while (i < text.length) {
    if (text[i] === "\\" && i + 1 < text.length && ESCAPED.test(text[i + 1])) {
      flush(i);
      plain = i + 1;
      i += 2;
      continue;
    }
    const found = depth < MAX_DEPTH ? special(source, i, depth, dead) : null;
    if (found === null) {
      i += 1;
      continue;
    }
    flush(i);
    nodes.push(found.node);
    i = plain = found.end;
  }
  flush(text.length);
  return nodes;
}

/**
 * What begins at a character, if it is more than text.
 * @param {Source} source
 * @param {number} i
 * @param {number} depth
 * @param {Set<string>} dead
 * @returns {{node: Inline, end: number} | null}
 */
function special(source, i, depth, dead) {
  switch (source.text[i]) {
    case "\u2028":
      return { node: { kind: "break" }, end: i + 1 };
    case "`":
      return code(source, i, dead);
    case "*":
    case "_":
    case "~":
      return emphasis(source, i, depth, dead);
    case "!":
    case "[":
      return link(source, i, depth, dead);
    case "h":
    case "H":
      return address(source, i);
    default:
      return null;
  }
}

/**
 * @param {Source} source
 * @param {number} i
 * @param {Set<string>} dead
 * @returns {{node: Inline, end: number} | null}
 */
function code(source, i, dead) {
  const { text } = source;
  let n = 1;
  while (text[i + n] === "`") n += 1;
  const fence = "`".repeat(n);
  if (dead.has(fence)) return null;
  let end = text.indexOf(fence, i + n);
  while (end >= 0 && text[end + n] === "`") {
    let past = end + n;
    while (text[past] === "`") past += 1;
    end = text.indexOf(fence, past);
  }
  if (end < 0) {
    dead.add(fence);
    return null;
  }
  let [from, to] = [i + n, end];
  const padded = text[from] === " " && text[to - 1] === " " && text.slice(from, to).trim();
  if (padded) [from, to] = [from + 1, to - 1];
  const inside = part(source, from, to);
  inside.text = inside.text.replaceAll("\u2028", " ");
  return { node: { kind: "code", ...inside }, end: end + n };
}

/**
 * @param {Source} source
 * @param {number} i
 * @param {number} depth
 * @param {Set<string>} dead
 * @returns {{node: Inline, end: number} | null}
 */
function emphasis(source, i, depth, dead) {
  const { text } = source;
  const mark = MARKS.find((candidate) => text.startsWith(candidate, i));
  if (mark === undefined || dead.has(mark)) return null;
  const from = i + mark.length;
  if (from >= text.length || /\s/.test(text[from])) return null;
  // snake_case is a word, not emphasis.
  if (mark[0] === "_" && i > 0 && WORD.test(text[i - 1])) return null;
  let end = text.indexOf(mark, from + 1);
  while (end >= 0 && !closes(text, mark, end)) end = text.indexOf(mark, end + 1);
  if (end < 0) {
    dead.add(mark);
    return null;
  }
  const inside = parse(part(source, from, end), depth + 1);
  const past = end + mark.length;
  if (mark === "***") {
    return { node: { kind: "strong", inside: [{ kind: "em", inside }] }, end: past };
  }
  const kind = mark === "~~" ? "del" : mark.length === 2 ? "strong" : "em";
  return { node: { kind, inside }, end: past };
}

/**
 * @param {string} text
 * @param {string} mark
 * @param {number} end
 */
function closes(text, mark, end) {
  if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") return false;
  const after = text[end + mark.length];
  if (mark.length === 1 && (after === mark || text[end - 1] === mark)) return false;
  return mark[0] !== "_" || after === undefined || !WORD.test(after);
}

/**
 * A link; an image becomes one too, since nothing is loaded from elsewhere.
 * @param {Source} source
 * @param {number} i
 * @param {number} depth
 * @param {Set<string>} dead
 * @returns {{node: Inline, end: number} | null}
 */
function link(source, i, depth, dead) {
  const { text } = source;
  const from = text[i] === "!" ? i + 2 : i + 1;
  if (text[from - 1] !== "[" || dead.has("](")) return null;
  const middle = text.indexOf("](", from);
  if (middle < 0) {
    dead.add("](");
    return null;
  }
  const end = middle - from > MAX_LABEL ? -1 : text.indexOf(")", middle);
  if (end < 0 || /[[\n]/.test(text.slice(from, middle))) return null;
  const label = part(source, from, middle);
  const href = text.slice(middle + 2, end).trim().split(/\s/)[0].replace(/^<(.*)>$/, "$1");
  const inside = parse(label, depth + 1);
  if (!SAFE_ADDRESS.test(href)) return null;
  return { node: { kind: "link", href, inside }, end: end + 1 };
}

/**
 * @param {Source} source
 * @param {number} i
 * @returns {{node: Inline, end: number} | null}
 */
function address(source, i) {
  if (i > 0 && WORD.test(source.text[i - 1])) return null;
  const found = ADDRESS.exec(source.text.slice(i, i + 2048));
  if (!found) return null;
  const href = found[0].replace(/[.,;:!?)\]*_~]+$/, "");
  const label = part(source, i, i + href.length);
  return { node: { kind: "link", href, inside: [{ kind: "text", ...label }] }, end: i + href.length };
}

/**
 * @param {Source} source
 * @param {number} start
 * @param {number} end
 * @returns {Source}
 */
function part(source, start, end) {
  return { text: source.text.slice(start, end), at: source.at.slice(start, end) };
}
