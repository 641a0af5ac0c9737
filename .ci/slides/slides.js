// Makes slides of the blocks of each column, by how tall they are drawn, and starts reveal.js.
"use strict";

const HEIGHT = 720;
const WIDTH = 1280;
const WIDE = "img, table, mjx-math, .zsl-piece"; // what does not break into lines
const LEAST = 0.6; // how far a block that fits no slide is made smaller; beyond that it scrolls

/** The room of an element with its margins, in px. */
function room(element) {
  const style = getComputedStyle(element);
  return element.offsetHeight + parseFloat(style.marginTop) + parseFloat(style.marginBottom);
}

/** The room below the heading of a slide. */
function available(column) {
  const style = getComputedStyle(column);
  const padding = parseFloat(style.paddingTop) + parseFloat(style.paddingBottom);
  return HEIGHT - padding - room(column.firstElementChild);
}

/** Make a block as small as it must be, so that it fits a slide. */
function fit(block, limit) {
  const widths = [...block.querySelectorAll(WIDE)].map((element) => element.getBoundingClientRect().width);
  const scale = Math.min(1, limit / room(block), block.clientWidth / Math.max(1, ...widths));
  if (scale === 1) return;
  block.style.zoom = Math.max(LEAST, 0.98 * scale);
  if (scale >= LEAST) return;
  block.classList.add("scrolls");
  block.style.maxHeight = `${limit / LEAST}px`;
}

/** Blocks that belong on one slide: text with the equation or list after it, code with its output. */
function groups(blocks) {
  const joined = [];
  for (const block of blocks) {
    const last = joined.at(-1)?.at(-1);
    const follows =
      last?.matches(".heading, .lead") || (block.matches(".output") && last?.matches(".code, .output"));
    if (follows) joined.at(-1).push(block);
    else joined.push([block]);
  }
  return joined;
}

/** The blocks of a column, divided into slides. */
function divided(column) {
  const limit = available(column);
  const blocks = [...column.querySelectorAll(":scope > .block")];
  for (const block of blocks) fit(block, limit);
  const pages = [[]];
  let left = limit;
  const put = (pieces, height) => {
    const begins = pieces[0].matches(".heading");
    if (pages.at(-1).length && (height > left || begins)) {
      pages.push([]);
      left = limit;
    }
    pages.at(-1).push(...pieces);
    left -= height;
  };
  const tall = (pieces) => pieces.reduce((sum, piece) => sum + room(piece), 0);
  for (const group of groups(blocks)) {
    if (tall(group) <= limit) put(group, tall(group));
    else for (const block of group) put([block], room(block));
  }
  return pages;
}

/** One slide. From the first output on, each block comes by a click; whole paragraphs go to the notes. */
function slide(heading, blocks) {
  const section = document.createElement("section");
  const notes = document.createElement("aside");
  notes.className = "notes";
  section.append(heading.cloneNode(true), ...blocks);
  let after = false;
  for (const block of blocks) {
    after ||= block.matches(".output") && block !== blocks[0];
    if (after) block.classList.add("fragment");
    const whole = block.querySelector("aside.whole");
    if (whole) notes.append(...whole.childNodes);
    whole?.remove();
  }
  if (notes.childNodes.length) section.append(notes);
  return section;
}

/** Replace a column's blocks by its slides. */
function makeSlides(column) {
  const pages = divided(column);
  const heading = column.firstElementChild;
  const slides = pages.map((blocks) => slide(heading, blocks));
  column.replaceChildren(...slides);
  column.classList.remove("column");
}

/** Whether an element that has the focus can still scroll the way an arrow key points. */
function scrolls(element, key) {
  const { scrollLeft, scrollTop, scrollWidth, scrollHeight, clientWidth, clientHeight } = element;
  return {
    ArrowLeft: scrollLeft > 0,
    ArrowUp: scrollTop > 0,
    ArrowRight: scrollLeft + clientWidth < scrollWidth - 1,
    ArrowDown: scrollTop + clientHeight < scrollHeight - 1,
  }[key];
}

async function start() {
  await MathJax.startup.promise;
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
  document.querySelectorAll("section.column").forEach(makeSlides);
  const mayScroll = document.querySelectorAll(".reveal pre, .reveal .scrolls");
  for (const element of mayScroll) element.tabIndex = 0; // to be reached by the key Tab
  let shown = false;
  const showText = () => {
    Reveal.configure({ showNotes: (shown = !shown) });
    Reveal.layout();
  };
  await Reveal.initialize({
    width: WIDTH,
    height: HEIGHT,
    margin: 0,
    center: false,
    transition: "none",
    hash: true,
    slideNumber: "c/t",
    keyboard: { 84: showText }, // the key T
    keyboardCondition: ({ key }) => ![...mayScroll].some((e) => e === document.activeElement && scrolls(e, key)),
  });
  window.slidesReady = Reveal.getTotalSlides();
}

start();
