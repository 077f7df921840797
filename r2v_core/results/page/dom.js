// The only ways in which this page makes elements. A text always goes in as a text node, so whatever a model or an
// environment wrote, it can't become markup or script; the page's policy refuses every way of parsing a text besides.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element; children are nodes or texts, null ones are left out. */
const el = (name, attributes = {}, ...children) => build(document.createElement(name), attributes, children);

/** The same for SVG. */
const svg = (name, attributes = {}, ...children) => build(document.createElementNS(SVG, name), attributes, children);

/** A button that does something. */
function button(attributes, onClick, ...children) {
  const node = el("button", { type: "button", ...attributes }, ...children);
  node.addEventListener("click", onClick);
  return node;
}

const byId = (id) => document.getElementById(id);

const fixed = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const units = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
/** An action in one line: itself, or a program's first line. */
const headline = (action) => (action.includes("\n") ? `${action.split("\n", 1)[0]} …` : action);
