// @ts-check
/** An answer's text in the document: formatted or as it is, its parts tinted by their maker. */

import { element } from "./dom.js";
import { parseMarkdown } from "./markdown.js";

/** @typedef {import("./answer.js").Run} Run */
/** @typedef {import("./inline.js").Inline} Inline */
/** @typedef {import("./markdown.js").Block} Block */

/** Shows a growing text; only the blocks that changed are made anew. */
export class RichText {
  /** @param {HTMLElement} container */
  constructor(container) {
    this._container = container;
    /** @type {string[]} what each child was made of */
    this._made = [];
  }

  /**
   * @param {string} text
   * @param {Run[]} runs who made which characters; all of them in order
   * @param {"markdown" | "plain"} format
   */
  show(text, runs, format) {
    const tint = new Tint(runs);
    if (format === "plain") {
      this._replace([`plain ${text.length} ${tint.key}`], () => plainText(text, tint));
      return;
    }
    const blocks = parseMarkdown(text);
    const levels = headingLevels(blocks.map(({ block }) => block));
    const keys = blocks.map(({ block, source }, i) => `${block.kind}${levels[i]} ${tint.key} ${source}`);
    this._replace(keys, (i) => blockElement(blocks[i].block, tint, levels[i]));
  }

  /**
   * @param {string[]} keys
   * @param {(i: number) => HTMLElement} make
   */
  _replace(keys, make) {
    const { children } = this._container;
    for (let i = 0; i < keys.length; i += 1) {
      if (this._made[i] === keys[i]) continue;
      const made = make(i);
      if (i < children.length) children[i].replaceWith(made);
      else this._container.append(made);
    }
    while (children.length > keys.length) children[children.length - 1].remove();
    this._made = keys;
  }
}

/** Who made the character at a place of the text. */
class Tint {
  /** @param {Run[]} runs */
  constructor(runs) {
    this._runs = runs;
    /** Changes when a place that was tinted before is tinted otherwise: where runs begin. */
    this.key = runs.map((run) => `${run.origin[0]}${run.start}`).join(",");
  }

  /** @param {number} at */
  _run(at) {
    return this._runs.find((run) => at >= run.start && at < run.end) ?? this._runs.at(-1);
  }

  /**
   * Append characters, a span for each maker.
   * @param {HTMLElement} target
   * @param {string} text
   * @param {(i: number) => number} at where character i stood
   */
  append(target, text, at) {
    let start = 0;
    while (start < text.length) {
      const run = this._run(at(start));
      let end = start + 1;
      while (end < text.length && this._run(at(end)) === run) end += 1;
      const part = text.slice(start, end);
      target.append(run ? element("span", { class: `by-${run.origin}` }, part) : part);
      start = end;
    }
  }
}

/**
 * @param {string} text
 * @param {Tint} tint
 */
function plainText(text, tint) {
  const made = element("div", { class: "as-it-is" });
  tint.append(made, text, (i) => i);
  return made;
}

/**
 * The levels at which headings are shown: below the page's own, and none left out on the way down.
 * @param {Block[]} blocks
 * @returns {number[]} 0 for what is no heading
 */
function headingLevels(blocks) {
  let last = 2;
  return blocks.map((block) => {
    if (block.kind !== "heading") return 0;
    last = Math.min(block.level + 2, last + 1, 6);
    return last;
  });
}

/**
 * @param {Block} block
 * @param {Tint} tint
 * @param {number} [level] of a heading; 0 where headings have no place, as in a list
 * @returns {HTMLElement}
 */
function blockElement(block, tint, level = 0) {
  switch (block.kind) {
    case "paragraph":
      return inlineInto(element("p"), block.inline, tint);
    case "heading": {
      if (level === 0) return element("p", {}, inlineInto(element("strong"), block.inline, tint));
      const tag = /** @type {"h3" | "h4" | "h5" | "h6"} */ (`h${level}`);
      return inlineInto(element(tag), block.inline, tint);
    }
    case "rule":
      return element("hr");
    case "code":
      return codeElement(block.lines, block.language, tint);
    case "quote":
      return element("blockquote", {}, ...block.blocks.map((inner) => blockElement(inner, tint)));
    case "list": {
      const list = element(block.ordered ? "ol" : "ul");
      if (block.ordered && block.start !== 1) list.setAttribute("start", String(block.start));
      list.append(...block.items.map((item) => itemElement(item, tint)));
      return list;
    }
    case "table":
      return tableElement(block.head, block.rows, tint);
  }
}

/**
 * @param {Block[]} blocks
 * @param {Tint} tint
 */
function itemElement(blocks, tint) {
  const item = element("li");
  for (const block of blocks) {
    if (block.kind === "paragraph" && !item.hasChildNodes()) inlineInto(item, block.inline, tint);
    else item.append(blockElement(block, tint));
  }
  return item;
}

/**
 * @param {{text: string, at: number}[]} lines
 * @param {string} language
 * @param {Tint} tint
 */
function codeElement(lines, language, tint) {
  const code = element("code", { "data-language": language || null });
  for (const [i, line] of lines.entries()) {
    if (i > 0) code.append("\n");
    tint.append(code, line.text, (k) => line.at + k);
  }
  const label = language ? `code, ${language}` : "code";
  return element("pre", { tabindex: "0", role: "region", "aria-label": label }, code);
}

/**
 * @param {Inline[][]} head
 * @param {Inline[][][]} rows
 * @param {Tint} tint
 */
function tableElement(head, rows, tint) {
  /**
   * @param {"th" | "td"} tag
   * @param {Inline[][]} cells
   */
  const row = (tag, cells) =>
    element("tr", {}, ...cells.map((cell) => inlineInto(element(tag), cell, tint)));
  const table = element("table", {}, element("thead", {}, row("th", head)));
  table.append(element("tbody", {}, ...rows.map((cells) => row("td", cells))));
  return element("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "table" }, table);
}

/**
 * @param {HTMLElement} target
 * @param {Inline[]} nodes
 * @param {Tint} tint
 */
function inlineInto(target, nodes, tint) {
  for (const node of nodes) {
    switch (node.kind) {
      case "text":
        tint.append(target, node.text, (i) => node.at[i]);
        break;
      case "code": {
        const code = element("code");
        tint.append(code, node.text, (i) => node.at[i]);
        target.append(code);
        break;
      }
      case "break":
        target.append(element("br"));
        break;
      case "link":
        target.append(inlineInto(linkElement(node.href), node.inside, tint));
        break;
      default:
        target.append(inlineInto(element(node.kind), node.inside, tint));
    }
  }
  return target;
}

/** @param {string} href checked by the parser: http, https or mailto */
function linkElement(href) {
  return element("a", { href, rel: "noopener noreferrer nofollow", target: "_blank" });
}
