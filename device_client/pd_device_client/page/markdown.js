// @ts-check
/**
 * Markdown to a tree of blocks that remember where in the text each character stood.
 *
 * The common part of CommonMark: headings, paragraphs, lists, quotes, fenced code, tables, rules.
 * Markup of HTML is text here. A text that is still growing parses as far as it goes.
 */

import { parseInline } from "./inline.js";

/** @typedef {import("./inline.js").Inline} Inline */
/** @typedef {{text: string, at: number}} Line a line without its end; `at`: where it begins */
/**
 * @typedef {{kind: "paragraph", inline: Inline[]}
 *   | {kind: "heading", level: number, inline: Inline[]}
 *   | {kind: "code", language: string, lines: Line[]}
 *   | {kind: "quote", blocks: Block[]}
 *   | {kind: "list", ordered: boolean, start: number, items: Block[][]}
 *   | {kind: "table", head: Inline[][], rows: Inline[][][]}
 *   | {kind: "rule"}} Block
 */

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^( {0,3}(#{1,6})[ \t]+)(.*?)[ \t]*#*[ \t]*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|\t|$)/;
const TABLE_RULE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const MAX_DEPTH = 12;

/**
 * @param {string} text
 * @returns {{block: Block, source: string, at: number}[]} the blocks, each with the lines it was made
 *   of and where they begin
 */
export function parseMarkdown(text) {
  /** @type {Line[]} */
  const lines = [];
  let at = 0;
  for (const line of text.split("\n")) {
    lines.push({ text: line.replace(/\r$/, ""), at });
    at += line.length + 1;
  }
  return located(lines, 0).map(({ block, start, end }) => {
    const last = lines[end - 1];
    const { at } = lines[start];
    return { block, source: text.slice(at, last.at + last.text.length), at };
  });
}

/**
 * @param {Line[]} lines
 * @param {number} depth
 */
function parseBlocks(lines, depth) {
  return located(lines, depth).map(({ block }) => block);
}

/**
 * @param {Line[]} lines
 * @param {number} depth
 * @returns {{block: Block, start: number, end: number}[]} with the lines start .. end
 */
function located(lines, depth) {
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    if (!lines[i].text.trim()) {
      i += 1;
      continue;
    }
    const [block, next] = parseBlock(lines, i, depth);
    blocks.push({ block, start: i, end: next });
    i = next;
  }
  return blocks;
}

/**
 * @param {Line[]} lines
 * @param {number} i a line that is not blank
 * @param {number} depth
 * @returns {[Block, number]} the block, and the first line after it
 */
function parseBlock(lines, i, depth) {
  const { text } = lines[i];
  const fence = FENCE.exec(text);
  if (fence) return parseCode(lines, i, fence[1], fence[2]);
  const heading = HEADING.exec(text);
  if (heading) {
    const inline = parseInline([cut(lines[i], heading[1].length, heading[3].length)]);
    return [{ kind: "heading", level: heading[2].length, inline }, i + 1];
  }
  if (RULE.test(text)) return [{ kind: "rule" }, i + 1];
  if (depth < MAX_DEPTH && QUOTE.test(text)) return parseQuote(lines, i, depth);
  if (depth < MAX_DEPTH && ITEM.test(text)) return parseList(lines, i, depth);
  if (isTable(lines, i)) return parseTable(lines, i);
  return parseParagraph(lines, i, depth);
}

/**
 * @param {Line[]} lines
 * @param {number} i
 * @param {string} fence
 * @param {string} language
 * @returns {[Block, number]}
 */
function parseCode(lines, i, fence, language) {
  const indent = lines[i].text.search(/\S/);
  const inside = [];
  let next = i + 1;
  for (; next < lines.length; next += 1) {
    const trimmed = lines[next].text.trim();
    if (trimmed.startsWith(fence) && !trimmed.replaceAll(fence[0], "")) {
      next += 1;
      break;
    }
    const spaces = Math.min(indent, lines[next].text.search(/\S|$/));
    inside.push(cut(lines[next], spaces));
  }
  return [{ kind: "code", language, lines: inside }, next];
}

/**
 * @param {Line[]} lines
 * @param {number} i
 * @param {number} depth
 * @returns {[Block, number]}
 */
function parseQuote(lines, i, depth) {
  const inside = [];
  let next = i;
  for (; next < lines.length; next += 1) {
    const mark = QUOTE.exec(lines[next].text);
    if (!mark) break;
    inside.push(cut(lines[next], mark[0].length));
  }
  return [{ kind: "quote", blocks: parseBlocks(inside, depth + 1) }, next];
}

/**
 * @param {Line[]} lines
 * @param {number} i
 * @param {number} depth
 * @returns {[Block, number]}
 */
function parseList(lines, i, depth) {
  const first = /** @type {RegExpExecArray} */ (ITEM.exec(lines[i].text));
  const ordered = /\d/.test(first[2]);
  const kind = first[2].at(-1);
  /** @type {Block[][]} */
  const items = [];
  let next = i;
  while (next < lines.length) {
    const mark = ITEM.exec(lines[next].text);
    if (!mark || mark[2].at(-1) !== kind || RULE.test(lines[next].text)) break;
    const width = mark[0].length;
    const inside = [cut(lines[next], width)];
    next += 1;
    for (; next < lines.length && belongs(lines, next, width); next += 1) {
      inside.push(cut(lines[next], Math.min(width, lines[next].text.search(/\S|$/))));
    }
    items.push(parseBlocks(inside, depth + 1));
    while (next < lines.length && !lines[next].text.trim() && ITEM.test(textAfter(lines, next))) {
      next += 1;
    }
  }
  return [{ kind: "list", ordered, start: ordered ? Number.parseInt(first[2], 10) : 1, items }, next];
}

/**
 * Whether a line goes on with a list's item whose content begins at column `width`.
 * @param {Line[]} lines
 * @param {number} i
 * @param {number} width
 */
function belongs(lines, i, width) {
  const { text } = lines[i];
  if (!text.trim()) return indentOf(textAfter(lines, i)) >= width;
  if (indentOf(text) >= width) return true;
  return Boolean(lines[i - 1].text.trim()) && !beginsBlock(text);
}

/** @param {string} text */
function indentOf(text) {
  return text.trim() ? text.search(/\S/) : -1;
}

/**
 * The next line that is not blank, or "".
 * @param {Line[]} lines
 * @param {number} i
 */
function textAfter(lines, i) {
  for (let next = i + 1; next < lines.length; next += 1) {
    if (lines[next].text.trim()) return lines[next].text;
  }
  return "";
}

/** @param {string} text */
function beginsBlock(text) {
  return [FENCE, HEADING, RULE, QUOTE, ITEM].some((kind) => kind.test(text));
}

/**
 * @param {Line[]} lines
 * @param {number} i
 */
function isTable(lines, i) {
  const rule = lines[i + 1]?.text ?? "";
  if (!lines[i].text.includes("|") || !rule.includes("-") || !TABLE_RULE.test(rule)) return false;
  return cellsOf(lines[i]).length === cellsOf(lines[i + 1]).length;
}

/**
 * @param {Line[]} lines
 * @param {number} i
 * @returns {[Block, number]}
 */
function parseTable(lines, i) {
  const head = cellsOf(lines[i]).map((cell) => parseInline([cell]));
  const rows = [];
  let next = i + 2;
  for (; next < lines.length && lines[next].text.includes("|"); next += 1) {
    rows.push(cellsOf(lines[next]).slice(0, head.length).map((cell) => parseInline([cell])));
  }
  return [{ kind: "table", head, rows }, next];
}

/**
 * @param {Line} line
 * @returns {Line[]}
 */
function cellsOf(line) {
  const cells = [];
  let start = line.text.search(/\S/);
  if (line.text[start] === "|") start += 1;
  for (let i = start; i <= line.text.length; i += 1) {
    const end = i === line.text.length;
    if (!end && (line.text[i] !== "|" || line.text[i - 1] === "\\")) continue;
    const cell = line.text.slice(start, i);
    if (!end || cell.trim()) {
      cells.push(cut(line, start + Math.max(cell.search(/\S/), 0), cell.trim().length));
    }
    start = i + 1;
  }
  return cells;
}

/**
 * @param {Line[]} lines
 * @param {number} i
 * @param {number} depth
 * @returns {[Block, number]}
 */
function parseParagraph(lines, i, depth) {
  const inside = [];
  let next = i;
  for (; next < lines.length; next += 1) {
    const { text } = lines[next];
    if (!text.trim() || (next > i && depth < MAX_DEPTH && beginsBlock(text))) break;
    inside.push(cut(lines[next], text.search(/\S/)));
  }
  return [{ kind: "paragraph", inline: parseInline(inside) }, next];
}

/**
 * @param {Line} line
 * @param {number} start
 * @param {number} [length]
 * @returns {Line}
 */
function cut(line, start, length = line.text.length - start) {
  return { text: line.text.slice(start, start + length), at: line.at + start };
}
