// The interactive pieces of the book. zsl_lib/interactive.py puts this file and a call of start(name) into
// the output of a cell, inside a function of its own. Plain ES2020: no library, no request, no kernel.

const SVG = "http://www.w3.org/2000/svg";

/** Give an element attributes and children. A string becomes text, never markup. */
function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const KEYS = { "data-lm-suppress-shortcuts": "true" }; // JupyterLab leaves the keys to such an element
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A number as the page shows it: a true minus sign, and powers of ten where it is huge. */
function number(value, decimals) {
  const text = Math.abs(value) < 1e5 ? value.toFixed(decimals) : value.toExponential(1);
  return text.replace(/-/g, "−").replace(/^−(0(\.0*)?)$/, "$1");
}

const percent = (value) => `${number(value, 1)}\u00a0%`; // not broken at the space

/** A labelled range input over the texts; changed(i) is called when the reader moves it. */
function slider(name, texts, at, changed) {
  const value = make("span", { class: "zsl-value", "aria-hidden": "true" });
  const input = make("input", { ...KEYS, type: "range", min: 0, max: texts.length - 1, step: 1, value: at });
  const set = (to) => {
    input.value = to;
    value.textContent = texts[to];
    input.setAttribute("aria-valuetext", texts[to]);
  };
  input.addEventListener("input", () => {
    set(Number(input.value));
    changed(Number(input.value));
  });
  set(at);
  return { set, element: make("label", { class: "zsl-slider" }, make("span", {}, name), value, input) };
}

/** A labelled menu; nothing to choose where there is one text only. */
function menu(name, texts, changed) {
  const select = make("select", KEYS, ...texts.map((text, i) => make("option", { value: i }, text)));
  select.addEventListener("change", () => changed(Number(select.value)));
  const label = make("label", { class: "zsl-menu" }, make("span", {}, name), select);
  label.hidden = texts.length < 2;
  return label;
}

function button(text, pressed) {
  const element = make("button", { ...KEYS, type: "button" }, text);
  element.addEventListener("click", pressed);
  return element;
}

/** The sentence with the values: screen readers say it when it changes. */
const sentence = () => make("p", { class: "zsl-now", role: "status" });

/** Key to the colours: a swatch of the class and its text. */
const legend = (entries) =>
  make("ul", { class: "zsl-key" }, ...entries.map(([kind, text]) => make("li", {}, make("i", { class: kind }), text)));

const columns = (panel, left, right) =>
  panel.append(make("div", { class: "zsl-picture" }, ...left), make("div", { class: "zsl-controls" }, ...right));

/** Round numbers from low to high, about five of them. */
function ticks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 4));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => (high - low) / k <= 6);
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, i) => (first + i) * step);
}

/** Axes with ticks; x and y map values to the drawing, add() puts shapes in, line() joins points. */
function axes(xLimits, yLimits, xLabel, yLabel, height = 300) {
  const [left, right, top, bottom] = [46, 382, 8, height - 42];
  const x = (v) => left + ((v - xLimits[0]) / (xLimits[1] - xLimits[0])) * (right - left);
  const y = (v) => bottom - ((v - yLimits[0]) / (yLimits[1] - yLimits[0])) * (bottom - top);
  const svg = shape("svg", { viewBox: `0 0 400 ${height}`, "aria-hidden": "true" });
  svg.append(shape("path", { class: "zsl-frame", d: `M${left} ${top}V${bottom}H${right}` }));
  const digits = (values) => (values.length > 1 && values[1] - values[0] < 0.95 ? (values[1] - values[0] < 0.095 ? 2 : 1) : 0);
  const atX = ticks(...xLimits);
  const atY = ticks(...yLimits);
  for (const v of atX) {
    const text = shape("text", { x: x(v), y: bottom + 17, "text-anchor": "middle" }, number(v, digits(atX)));
    svg.append(shape("path", { class: "zsl-frame", d: `M${x(v)} ${bottom}v4` }), text);
  }
  for (const v of atY) {
    const text = shape("text", { x: left - 7, y: y(v) + 4, "text-anchor": "end" }, number(v, digits(atY)));
    svg.append(shape("path", { class: "zsl-frame", d: `M${left} ${y(v)}h-4` }), text);
  }
  const middle = (top + bottom) / 2;
  const turned = { x: 12, y: middle, transform: `rotate(-90 12 ${middle})`, "text-anchor": "middle" };
  svg.append(shape("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel));
  svg.append(shape("text", turned, yLabel));
  const inside = shape("svg", { x: left, y: top, width: right - left, height: bottom - top });
  inside.setAttribute("viewBox", `${left} ${top} ${right - left} ${bottom - top}`); // clips what lies outside
  svg.append(inside);
  const add = (tag, attributes) => inside.appendChild(shape(tag, attributes));
  const line = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
  return { svg, x, y, add, line, xLimits, yLimits };
}

// --- a Langevin chain, step by step -----------------------------------------------------------------------

function chain(data, panel) {
  const plot = axes(data.x, data.y, "z₁", "z₂", data.height);
  for (const line of data.contours) plot.add("path", { class: "zsl-contour", d: plot.line(line) });
  const trail = plot.add("path", { class: "zsl-trail" });
  const drift = plot.add("path", { class: "zsl-line zsl-a" });
  const noise = plot.add("path", { class: "zsl-line zsl-b" });
  const dot = plot.add("circle", { r: 5, class: "zsl-dot" });
  const now = sentence();
  const last = data.states[0].length - 1;
  let [size, step, timer] = [data.start, 0, null];

  const near = (v, [low, high]) => Math.min(high, Math.max(low, v));
  const farthest = (v, [low, high]) => near(v, [low - 5 * (high - low), high + 5 * (high - low)]);
  const visible = ([a, b]) => [farthest(a, data.x), farthest(b, data.y)]; // huge numbers break a drawing

  function arrow(path, from, to) {
    const [ax, ay, bx, by] = [plot.x(from[0]), plot.y(from[1]), plot.x(to[0]), plot.y(to[1])];
    const angle = Math.atan2(by - ay, bx - ax);
    const length = Math.min(7, Math.hypot(bx - ax, by - ay) / 2);
    const wing = (turn) => `M${bx} ${by}l${-length * Math.cos(angle + turn)} ${-length * Math.sin(angle + turn)}`;
    path.setAttribute("d", `M${ax} ${ay}L${bx} ${by}${wing(0.5)}${wing(-0.5)}`);
  }

  function show() {
    const states = data.states[size];
    const z = states[step];
    trail.setAttribute("d", plot.line(states.slice(0, step + 1).map(visible)));
    const before = step ? states[step - 1] : z;
    const middle = step ? data.centres[size][step - 1] : z;
    arrow(drift, visible(before), visible(middle));
    arrow(noise, visible(middle), visible(z));
    const inside = z.every((v, i) => v === near(v, [data.x, data.y][i]));
    dot.setAttribute("cx", near(plot.x(z[0]), data.x.map((v, i) => plot.x(v) + [6, -6][i]))); // at the edge, if
    dot.setAttribute("cy", near(plot.y(z[1]), data.y.map((v, i) => plot.y(v) - [6, -6][i]).reverse())); // outside
    dot.classList.toggle("zsl-outside", !inside);
    const where = `z = (${number(z[0], 2)}, ${number(z[1], 2)}), log p = ${number(data.logP[size][step], 2)}`;
    now.textContent = `Step ${step} of ${last}, s = ${data.sizes[size]}: ${where}${inside ? "." : "; outside the picture."}`;
    steps.set(step);
  }

  function go(to) {
    step = Math.min(last, Math.max(0, to));
    show();
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = calm() ? "To the end" : "Play";
    now.setAttribute("aria-live", "polite");
  }
  function toggle() {
    if (timer) return stop();
    if (step === last) go(0);
    if (calm()) return go(last); // no movement for readers who asked for none
    now.setAttribute("aria-live", "off"); // not a sentence for each step
    play.textContent = "Pause";
    timer = setInterval(() => {
      go(step + 1);
      if (step === last || !panel.isConnected) stop();
    }, 180);
  }
  function by(amount) {
    return () => {
      stop();
      go(step + amount);
    };
  }

  const sizes = slider("step size s", data.sizes, size, (to) => {
    size = to;
    show();
  });
  const numbers = Array.from({ length: last + 1 }, (_, i) => String(i));
  const steps = slider("step", numbers, 0, (to) => by(to - step)());
  const play = button(calm() ? "To the end" : "Play", toggle);
  const row = make("div", { class: "zsl-buttons" }, button("Back", by(-1)), button("Step", by(1)), play);
  const key = legend([
    ["zsl-a", "drift, s²/2 ∇ log p"],
    ["zsl-b", "noise, s u"],
  ]);
  columns(panel, [plot.svg, key], [sizes.element, steps.element, row, now]);
  show();
}

// --- seen, unseen and γ -----------------------------------------------------------------------------------

function calibration(data, panel) {
  const names = ["AU", "AS", "H"];
  const kinds = ["zsl-b", "zsl-a", "zsl-c"];
  const figure = make("div", { class: "zsl-pair" });
  const now = sentence();
  const control = make("div", {});
  const row = make("div", { class: "zsl-buttons" });
  let [method, at, draw] = [0, 0, null];

  function show() {
    const { AU, AS, H, labels } = data.curves[method];
    draw();
    const values = `AU ${percent(AU[at])}, AS ${percent(AS[at])}, H ${percent(H[at])}`;
    now.textContent = `${data.methods[method]}, γ = ${labels[at]}: ${values}.`;
  }

  function choose(to) {
    method = to;
    const curve = data.curves[method];
    at = curve.marks[0][1];
    const left = axes([curve.gamma[0], curve.gamma.at(-1)], [0, 100], "γ, off the scores of seen classes", "accuracy (%)");
    const right = axes([0, 100], [0, 100], "AU (%)", "AS (%)");
    const line = left.add("path", { class: "zsl-cursor" });
    const dots = names.map((name, i) => {
      left.add("path", { class: `zsl-line ${kinds[i]}`, d: left.line(curve.gamma.map((g, k) => [g, curve[name][k]])) });
      return left.add("circle", { r: 5, class: `zsl-dot ${kinds[i]}` });
    });
    right.add("path", { class: "zsl-line", d: right.line(curve.AU.map((u, k) => [u, curve.AS[k]])) });
    const point = right.add("circle", { r: 5, class: "zsl-dot" });
    draw = () => {
      const x = left.x(curve.gamma[at]);
      line.setAttribute("d", `M${x} 0V400`);
      dots.forEach((dot, i) => fill(dot, { cx: x, cy: left.y(curve[names[i]][at]) }, []));
      fill(point, { cx: right.x(curve.AU[at]), cy: right.y(curve.AS[at]) }, []);
    };
    const gamma = slider("γ", curve.labels, at, (k) => {
      at = k;
      show();
    });
    const jump = ([name, k]) =>
      button(name, () => {
        at = k;
        gamma.set(k);
        show();
      });
    figure.replaceChildren(left.svg, right.svg);
    control.replaceChildren(gamma.element);
    row.replaceChildren(...curve.marks.map(jump));
    show();
  }

  const key = legend(names.map((name, i) => [kinds[i], name]));
  panel.classList.add("zsl-wide");
  columns(panel, [figure, key], [menu("method", data.methods, choose), control, row, now]);
  choose(0);
}

// --- pictures ---------------------------------------------------------------------------------------------

/** The sheet of tiles, and a function that draws one of them on a canvas. */
function tiles(data, ready) {
  const sheet = new Image();
  sheet.src = data.sheet;
  sheet.decode().then(ready);
  const [w, h] = data.tile;
  return (canvas, index, x = 0) => {
    const from = [(index % data.across) * w, Math.floor(index / data.across) * h];
    canvas.getContext("2d").drawImage(sheet, ...from, w, h, x, 0, w, h);
  };
}

const canvasOf = (width, height, label) => make("canvas", { width, height, role: "img", "aria-label": label });
const framed = (canvas, text) => make("figure", {}, canvas, make("figcaption", {}, text));

function explorer(data, panel) {
  const [w, h] = data.tile;
  const at = [...data.start];
  const now = sentence();
  const picture = canvasOf(w, h, "the image");
  const strip = make("div", { class: "zsl-strip", "aria-hidden": "true" });
  let moved = data.axes.length - 1;

  const index = (place) => place.reduce((sum, k, a) => sum * data.axes[a].texts.length + k, 0);

  function show() {
    const here = index(at);
    tile(picture, here);
    const row = data.axes[moved].texts.map((_, k) => {
      const small = make("canvas", { width: w, height: h });
      small.classList.toggle("zsl-here", k === at[moved]);
      tile(small, index(at.map((v, a) => (a === moved ? k : v))));
      return small;
    });
    strip.replaceChildren(make("span", {}, `${data.axes[moved].name}:`), make("div", {}, ...row));
    now.textContent = `${data.captions[data.caption[here]]}; ${data.measure} ${number(data.values[here], 1)}${data.unit}.`;
    picture.setAttribute("aria-label", now.textContent);
  }

  const tile = tiles(data, show);
  const sliders = data.axes.map(({ name, texts }, a) => {
    const changed = (to) => {
      at[a] = to;
      moved = a;
      show();
    };
    return slider(name, texts, at[a], changed).element;
  });
  columns(panel, [make("div", { class: "zsl-large" }, picture), strip], [...sliders, now]);
}

function attack(data, panel) {
  const [w, h] = data.tile;
  const now = sentence();
  const canvases = ["image", "perturbed image", "perturbation, magnified"].map((name) => canvasOf(w, h, name));
  const captions = ["image", "perturbed", "perturbation"].map((text, i) => framed(canvases[i], text));
  const magnified = captions[2].lastChild;
  const bars = ["what it reads", "the true class"].map((name) => ({ name, bar: make("i", {}), text: make("span", {}) }));
  let [which, image, size] = [0, 0, data.start];

  function show() {
    const run = data.runs[which][size][image];
    tile(canvases[0], image);
    tile(canvases[1], run.tile);
    tile(canvases[2], run.tile + 1);
    magnified.textContent = run.most ? `perturbation, ± ${number(run.most, 1)}` : "no perturbation";
    const truth = data.names[data.truth[image]];
    const said = data.names[run.said];
    [run.sure, run.right].forEach((share, i) => {
      bars[i].bar.style.width = `${share}%`;
      bars[i].text.textContent = `${bars[i].name}, ${[said, truth][i]}: ${percent(share)}`;
    });
    const verdict = run.said === data.truth[image] ? "which is right" : `which is wrong: it is ${truth}, at ${percent(run.right)}`;
    const name = `${data.attacks[which]}, ${data.symbol} = ${data.radii[size]}`;
    now.textContent = `${name}: read as ${said} with ${percent(run.sure)} confidence, ${verdict}.`;
  }

  const tile = tiles(data, show);
  const radius = slider(`radius ${data.symbol}`, data.radii, size, (to) => {
    size = to;
    show();
  });
  const menus = [
    menu("image", data.truth.map((c, i) => `${i + 1}: ${data.names[c]}`), (to) => {
      image = to;
      show();
    }),
    menu("attack", data.attacks, (to) => {
      which = to;
      show();
    }),
  ];
  const rows = bars.map(({ bar, text }) => make("div", {}, text, make("div", { class: "zsl-bar" }, bar)));
  const shares = make("div", { class: "zsl-bars", "aria-hidden": "true" }, ...rows);
  panel.classList.add("zsl-wide");
  columns(panel, [make("div", { class: "zsl-row" }, ...captions), shares], [radius.element, ...menus, now]);
}

/** Bring every piece of this name to life: the same one may stand on a page twice. */
function start(name) {
  for (const root of document.querySelectorAll(`[data-zsl="${name}"]:not(.zsl-on)`)) {
    const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
    const panel = make("div", { class: "zsl-live", role: "group", "aria-label": data.title });
    root.classList.add("zsl-on");
    root.append(panel);
    ({ chain, calibration, explorer, attack })[data.kind](data, panel);
  }
}
