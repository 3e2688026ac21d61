"""Components made with `gradio.HTML`: buttons with pictures, and a grid on which a box is dragged.

Both trigger the event `pick`, whose data says what was chosen.
"""

from __future__ import annotations

from typing import Any

from captum_sgcampp.demo.quiet_gradio import gradio as gr

MAPS_CSS = """
.maps {display: flex; flex-wrap: wrap; gap: 0.75rem}
figure {margin: 0; flex: 1 1 150px; max-width: 336px}
figure img {width: 100%; display: block; border-radius: 4px; margin: 0}
figcaption {font-size: 0.9rem; padding-top: 0.25rem; color: var(--body-text-color)}
h3 {margin: 0.5rem 0; color: var(--body-text-color)}
"""
STATUS_CSS = """
p {margin: 0; min-height: 1.5rem; color: var(--body-text-color)}
.error {border-left: 4px solid #dc2626; padding-left: 0.5rem; font-weight: 600}
button {padding: 0.25rem 0.75rem; border: 2px solid currentColor; border-radius: 6px; cursor: pointer; color: inherit}
progress {width: 8rem; vertical-align: middle; accent-color: var(--color-accent)}
"""
LIST_CSS = "ul {margin: 0; padding-left: 1.2rem; list-style: disc} li {color: var(--body-text-color); margin: 0.2rem 0}"

TILES_CSS = """
.tiles {display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); gap: 0.4rem}
button {margin: 0; padding: 3px; border: 2px solid var(--border-color-primary); border-radius: 6px; cursor: pointer;
  background: var(--background-fill-primary); color: var(--body-text-color); min-width: 72px}
button[aria-pressed="true"] {border-color: var(--color-accent); box-shadow: 0 0 0 2px var(--color-accent)}
button:focus-visible {outline: 3px solid var(--color-accent); outline-offset: 2px}
button img {width: 72px; height: 72px; display: block; margin: 0 auto; border-radius: 3px}
button[aria-pressed] img {image-rendering: pixelated}  /* a feature map: one pixel for each cell */
button span {font-size: 0.7rem; white-space: nowrap; display: block}
"""
TILES_JS = """
let last = null;
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-number]');
  if (!button) return;
  last = document.activeElement === button ? button.dataset.number : null;
  trigger('pick', {number: Number(button.dataset.number)});
});
watch('value', () => {
  if (last !== null) element.querySelector(`button[data-number="${last}"]`)?.focus({preventScroll: true});
});
"""

GRID_CSS = """
.grid {position: relative; max-width: 420px; touch-action: pinch-zoom; user-select: none; cursor: crosshair}
.grid:focus-visible {outline: 3px solid var(--color-accent); outline-offset: 2px}
.grid img {width: 100%; display: block; margin: 0; pointer-events: none}
.grid b {position: absolute; inset: 0; pointer-events: none;
  background-image: linear-gradient(to right, #fff8 1px, transparent 1px),
    linear-gradient(to bottom, #fff8 1px, transparent 1px)}
.grid i {position: absolute; background: #facc1573; outline: 1px solid #000; pointer-events: none}
.grid u {position: absolute; border: 2px solid #fff; outline: 2px solid #000; pointer-events: none}
.place {font-size: 0.85rem; min-height: 1.3rem; margin: 0.25rem 0 0; color: var(--body-text-color)}
"""
GRID_JS = """
let start = null, at = [0, 0];
const grid = () => element.querySelector('.grid');
const size = () => [Number(grid().dataset.rows), Number(grid().dataset.columns)];
const within = (value, most) => Math.max(0, Math.min(most - 1, value));
const cell = event => {
  const box = grid().getBoundingClientRect(), [rows, columns] = size();
  return [within(Math.floor((event.clientY - box.top) / box.height * rows), rows),
    within(Math.floor((event.clientX - box.left) / box.width * columns), columns)];
};
const sides = (one, other) => [Math.min(one[0], other[0]), Math.max(one[0], other[0]) + 1,
  Math.min(one[1], other[1]), Math.max(one[1], other[1]) + 1];
const show = (one, other) => {
  const [rows, columns] = size(), [top, bottom, left, right] = sides(one, other), mark = element.querySelector('u');
  Object.assign(mark.style, {top: `${100 * top / rows}%`, height: `${100 * (bottom - top) / rows}%`,
    left: `${100 * left / columns}%`, width: `${100 * (right - left) / columns}%`});
  mark.hidden = false;
  element.querySelector('.place').textContent = `row ${other[0]}, column ${other[1]}`;
};
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('.grid') || event.button) return;
  start = cell(event);
  show(start, start);
});
window.addEventListener('pointermove', event => { if (start && grid()) show(start, cell(event)); });
window.addEventListener('pointercancel', () => { start = null; });
window.addEventListener('pointerup', event => {
  if (!start || !grid()) return;
  const end = cell(event), one = start;
  start = null;
  at = end;
  trigger('pick', {box: sides(one, end)});
});
const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
element.addEventListener('keydown', event => {
  if (!event.target.closest('.grid')) return;
  const [rows, columns] = size();
  if (event.key in steps) {
    at = [within(at[0] + steps[event.key][0], rows), within(at[1] + steps[event.key][1], columns)];
    show(at, at);
  } else if (event.key === ' ' || event.key === 'Enter') trigger('pick', {box: sides(at, at)});
  else if (event.key === 'Escape') trigger('pick', {box: []});
  else return;
  event.preventDefault();
});
let focused = false;
element.addEventListener('focusin', () => { focused = true; });
document.addEventListener('focusin', event => { if (!element.contains(event.target)) focused = false; });
watch('value', () => {
  if (focused && grid()) { grid().focus({preventScroll: true}); show(at, at); }
});
"""


def maps() -> Any:
    """Where figures are shown."""
    return gr.HTML(css_template=MAPS_CSS, js_on_load=None, elem_id="maps")


def status() -> Any:
    """A line that screen readers tell when it changes."""
    return gr.HTML(
        html_template='<div role="status" aria-live="polite">${value}</div>',
        css_template=STATUS_CSS,
        js_on_load=None,
        elem_id="status",
        value="<p>Loading.</p>",
    )


def sentences() -> Any:
    """A list of sentences."""
    return gr.HTML(css_template=LIST_CSS, js_on_load=None, elem_id="words")


def tiles(elem_id: str, value: str = "") -> Any:
    """Buttons with pictures; `pick` has the `number` of the one that was clicked."""
    return gr.HTML(value, css_template=TILES_CSS, js_on_load=TILES_JS, elem_id=elem_id)


def grid() -> Any:
    """A picture under a grid; `pick` has the `box` that was dragged: first row, end row, first column, end column."""
    return gr.HTML(css_template=GRID_CSS, js_on_load=GRID_JS, elem_id="grid")
