// Small helpers: elements, numbers as people read them, and text that is set only when it changes.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** An HTML element with attributes (`class`, `data-…`, `aria-…`) and children or text. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttr(element, name, value) {
  const text = String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/** Milliseconds with as many digits as they deserve: 0.65, 12.3, 431, 1,204. */
export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return value.toFixed(2);
  if (value < 100) return value.toFixed(1);
  return count(Math.round(value));
}

/** A time span as a person says it. */
export function span(valueMs) {
  if (valueMs === null || valueMs === undefined) return "–";
  if (valueMs < 1000) return `${ms(valueMs)} ms`;
  if (valueMs < 60000) return `${(valueMs / 1000).toFixed(1)} s`;
  return `${Math.floor(valueMs / 60000)} min ${Math.round((valueMs % 60000) / 1000)} s`;
}

/** A number with its thousands set apart. */
export function count(value) {
  return String(value).replace(/^\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, "\u2009"));
}

/** A lag range: "no lag", "0–1 000 ms". */
export function range(min, max) {
  if (max === 0) return "no lag";
  return min === max ? `${count(min)} ms` : `${count(min)}–${count(max)} ms`;
}

/** A time of day: 21:34:28. */
export function clock(date = new Date()) {
  return date.toLocaleTimeString([], { hourCycle: "h23" });
}

export const plural = (n, one, many) => `${count(n)} ${n === 1 ? one : many}`;

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

/** Whether things may move. */
export const mayMove = () => !stillness.matches;

/** The element's width, told again whenever it changes. */
export function onWidth(element, tell) {
  let known = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width && width !== known) tell((known = width));
  }).observe(element);
}

/** The next round number. */
export function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 1.5, 2, 3, 4, 5, 6, 8, 10]) if (step * power >= value) return step * power;
  return value;
}

/** How far apart the marks of an axis are. */
export function axisStep(axisMs, width) {
  const most = Math.max(2, Math.floor(width / 90));
  const power = 10 ** Math.floor(Math.log10(axisMs / most));
  for (const step of [1, 2, 5, 10, 20]) if (axisMs / (step * power) <= most) return step * power;
  return axisMs;
}

/** A short text beside the pointer. */
export function tip(text, x, y) {
  const element = $("tip");
  show(element, Boolean(text));
  if (!text) return;
  setText(element, text);
  const left = Math.min(x + 12, document.documentElement.clientWidth - element.offsetWidth - 8);
  element.style.left = `${Math.max(4, left)}px`;
  element.style.top = `${y + 16}px`;
}
