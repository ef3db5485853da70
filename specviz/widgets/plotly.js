// A small script in plotly's place. anywidget gives a model two seconds to load its script and then drops every
// message to it, for good; plotly's has 5 MB, and took longer on a busy machine. This one is there at once, and
// plotly's comes once a kernel, by a widget of its own, instead of once a figure.

const page = (window.specvizPlotly ??= (() => {
  let done;
  const script = new Promise((resolve) => (done = resolve));
  return { script, done };
})());

const BESIDE = 4; // at most so many curves have their names at their ends; points may come with them
const NARROWEST = 330; // pixels that names leave to the curves
const MOVED = 14; // pixels that a name may stand above or below its curve's end
const SYMBOLS = {
  circle: "M4,0A4,4 0 1,1 -4,0A4,4 0 1,1 4,0Z",
  square: "M-3.6,-3.6H3.6V3.6H-3.6Z",
  diamond: "M0,-5L5,0L0,5L-5,0Z",
  "triangle-up": "M0,-4.6L4.6,3.6H-4.6Z",
  cross: "M-1.6,-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z",
  x: "M0,-2L3,-5L5,-3L2,0L5,3L3,5L0,2L-3,5L-5,3L-2,0L-5,-3L-3,-5Z",
  star: "M0,-6L1.6,-2L6,-2L2.4,0.8L3.8,5L0,2.4L-3.8,5L-2.4,0.8L-6,-2L-1.6,-2Z",
};
const DASHES = { dash: "6 4", dot: "2 3" };

const element = (kind, look, parent) => {
  const node = document.createElement(kind);
  node.className = look;
  parent.append(node);
  return node;
};

// A name as it is read: plotly's small HTML is made of it, but nothing of the page.
const plain = (name) => new DOMParser().parseFromString(name, "text/html").body.textContent;

// How a curve looks, for its name.
function sample({ mode = "lines", line, marker, error_x }) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  Object.entries({ width: 26, height: 14, viewBox: "-13 -7 26 14", "aria-hidden": "true" }).forEach((pair) => svg.setAttribute(...pair));
  const path = (look) => {
    const node = document.createElementNS(svg.namespaceURI, "path");
    Object.entries(look).forEach((pair) => node.setAttribute(...pair));
    svg.append(node);
  };
  const stroke = mode.includes("lines") ? line : error_x && { color: error_x.color };
  if (stroke) path({ d: "M-13,0H13", stroke: stroke.color, "stroke-width": line?.width ?? 2, "stroke-dasharray": DASHES[stroke.dash] ?? "none" });
  const { symbol = "circle", color = line?.color } = marker ?? {};
  const open = `${symbol}`.endsWith("-open");
  const shape = SYMBOLS[`${symbol}`.replace("-open", "")] ?? SYMBOLS.circle;
  if (mode.includes("markers")) path({ d: shape, fill: open ? "none" : color, stroke: open ? color : "none", "stroke-width": 1.5 });
  return svg;
}

// A curve's points in pixels of the figure; null where it has a gap or leaves the view.
function pixels(points, { xaxis, yaxis, _size: size }) {
  return points.map(({ x, y }) => {
    if (!Number.isFinite(x) || !Number.isFinite(y)) return null;
    const at = [size.l + xaxis.c2p(x), size.t + yaxis.c2p(y)];
    const inside = at[0] > size.l - 1 && at[0] < size.l + size.w + 1 && at[1] > size.t - 1 && at[1] < size.t + size.h + 1;
    return inside ? at : null;
  });
}

// Whether a curve runs through a box.
function crosses(curve, [left, top, right, bottom], joined) {
  return curve.some((at, i) => {
    if (!at) return false;
    const from = joined && i && curve[i - 1] ? curve[i - 1] : at;
    const steps = Math.ceil(Math.hypot(at[0] - from[0], at[1] - from[1]) / 4) || 1;
    for (let k = 0; k <= steps; k++) {
      const x = from[0] + ((at[0] - from[0]) * k) / steps, y = from[1] + ((at[1] - from[1]) * k) / steps;
      if (x > left && x < right && y > top && y < bottom) return true;
    }
    return false;
  });
}

// Where each name may stand: { y } beside the curves, or { x, y } among them; null where they would collide.
function places(curves, boxes, layout) {
  const { l, t, w, h } = layout._size;
  if (curves.filter(({ joined }) => joined).length > BESIDE) return null;
  const found = curves.map(({ shown, joined }) => {
    if (shown.length > 1 && !joined) return null; // points have no end
    const end = shown.length > 1 && shown[0][0] > shown.at(-1)[0] ? shown[0] : shown.at(-1);
    return end && { end, beside: end[0] > l + 0.93 * w };
  });
  if (!found.every(Boolean)) return null;
  // Beside: as low as those above leave it, then all of a heap back up, so that they share the way.
  const column = found.map((place, i) => ({ ...place, i })).filter(({ beside }) => beside).sort((a, b) => a.end[1] - b.end[1]);
  const heaps = [];
  for (const { end, i } of column) {
    let heap = { names: [i], height: boxes[i].height, middle: end[1] };
    while (heaps.length && heaps.at(-1).middle + heaps.at(-1).height / 2 > heap.middle - heap.height / 2) {
      const above = heaps.pop(), names = [...above.names, ...heap.names];
      const middle = names.reduce((sum, k) => sum + found[k].end[1], 0) / names.length;
      heap = { names, height: above.height + heap.height, middle };
    }
    heaps.push(heap);
  }
  for (const { names, height, middle } of heaps) {
    let y = middle - height / 2;
    for (const i of names) {
      found[i].y = y + boxes[i].height / 2;
      y += boxes[i].height;
      if (Math.abs(found[i].y - found[i].end[1]) > MOVED) return null;
    }
  }
  // Among the curves: the first free place around the end.
  const taken = [];
  for (const [i, { end: [x, y], beside }] of found.entries()) {
    if (beside) continue;
    const { width, height } = boxes[i], gap = 9;
    const around = [[gap, -height / 2], [gap, -height - 3], [gap, 3], [-width - gap, -height - 3], [-width - gap, 3], [-width / 2, -height - gap], [-width / 2, gap], [-width - gap, -height / 2]];
    const box = around
      .map(([dx, dy]) => [x + dx, y + dy, x + dx + width, y + dy + height])
      .find((box) => box[0] > l && box[2] < l + w + 16 && box[1] > t && box[3] < t + h && !curves.some((one) => crosses(one.drawn, box, one.joined)) &&
        !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]));
    if (!box) return null;
    taken.push(box);
    Object.assign(found[i], { x: box[0], y: box[1] + height / 2 });
  }
  return found;
}

// The title and the curves' names stand around plotly's drawing, where the page breaks lines by the room there is.
function surround(model, el) {
  el.classList.add("specviz-figure");
  const title = element("div", "specviz-heading", el), plot = element("div", "specviz-curves", el), names = element("div", "specviz-names", el);
  names.setAttribute("role", "group");
  names.setAttribute("aria-label", "Curves");
  const say = () => {
    title.textContent = model.get("heading");
    el.setAttribute("aria-label", model.get("label"));
  };
  let known = "", below = false, width = 0;
  const build = (traces) => {
    names.replaceChildren(
      ...traces.map(({ full, index, visible }) => {
        const button = document.createElement("button");
        Object.assign(button, { type: "button", className: "specviz-curve", title: "Show or hide" });
        button.setAttribute("aria-pressed", visible);
        button.append(sample(full), Object.assign(document.createElement("span"), { textContent: plain(full.name) }));
        button.addEventListener("click", () => {
          const band = plot.data[index - 1]?.fill === "toself" ? [index - 1] : [];
          window.Plotly.restyle(plot, { visible: visible ? "legendonly" : true }, [...band, index]);
        });
        return button;
      }),
    );
  };
  const place = () => {
    const layout = plot._fullLayout;
    if (!layout?._size || !el.offsetWidth) return;
    el.style.setProperty("--left", `${layout._size.l}px`);
    const traces = !model.get("named") ? [] : plot._fullData // to plotly a curve without points is not visible
      .map((full, index) => ({ full, index, visible: full.visible === true, given: plot.data[index] }))
      .filter(({ full, given }) => given?.name && given.showlegend !== false && full.visible);
    names.hidden = !traces.length;
    if (names.hidden) return;
    const now = JSON.stringify(traces.map(({ full, visible }) => [full.name, visible, full.mode, full.line?.color, full.line?.dash, full.line?.width, full.marker?.symbol, full.marker?.color]));
    if (now !== known) build(traces);
    if (now !== known || width !== el.offsetWidth) below = false; // else a moving slider would move the names to and fro
    [known, width] = [now, el.offsetWidth];
    const buttons = [...names.children];
    const boxes = buttons.map((button) => ({ width: button.offsetWidth, height: button.offsetHeight }));
    const drawn = traces.map(({ full, index, visible }) => {
      const points = visible && layout.xaxis && layout.yaxis ? (plot.calcdata.find(([first]) => first?.trace?.index === index) ?? []) : [];
      const all = pixels(points, layout);
      return { drawn: all, shown: all.filter(Boolean), joined: `${full.mode}`.includes("lines") };
    });
    const found = !below && traces.every(({ visible }) => visible) && places(drawn, boxes, layout);
    const column = found ? Math.max(0, ...found.map(({ beside }, i) => (beside ? boxes[i].width : 0))) : 0;
    below = !found || el.offsetWidth - column < NARROWEST + layout._size.l;
    names.classList.toggle("specviz-below", below);
    const room = below ? 0 : column;
    buttons.forEach((button, i) => {
      const at = below ? null : found[i];
      // To the right of the axis' end, wherever the figure's width will put it.
      button.style.top = at ? `${plot.offsetTop + at.y}px` : "";
      button.style.left = at && !at.beside ? `${at.x}px` : "";
      button.style.right = at?.beside ? `${column - boxes[i].width}px` : "";
    });
    if (plot.style.marginRight !== `${room}px`) {
      plot.style.marginRight = `${room}px`;
      window.Plotly.Plots.resize(plot);
    }
  };
  say();
  model.on("change:label", say);
  model.on("change:heading", say);
  return { plot, place, undo: () => (model.off("change:label", say), model.off("change:heading", say)) };
}

export default {
  // The widget that holds the script.
  initialize({ model }) {
    const bytes = model.get("script");
    if (!bytes?.byteLength || page.asked) return;
    page.asked = true;
    const url = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
    import(url).then(page.done); // not awaited: that would take the two seconds
  },

  // A figure: in words too, for who does not see it. Of its drawing a screen reader would say the axes' numbers alone.
  render({ model, el }) {
    let gone = false, undo;
    el.setAttribute("role", "figure");
    const { plot, place, undo: leave } = surround(model, el);
    const hide = () => el.querySelectorAll("svg.main-svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
    const drawn = ({ detail }) => {
      hide();
      if (detail.element !== plot) return;
      plot.on("plotly_afterplot", place);
      place();
    };
    document.addEventListener("plotlywidget-after-render", drawn);
    page.script.then(({ default: plotly }) => {
      if (gone) return;
      const widget = plotly();
      widget.initialize({ model });
      undo = widget.render({ model, el: plot });
    });
    return () => {
      gone = true;
      leave();
      document.removeEventListener("plotlywidget-after-render", drawn);
      undo?.();
    };
  },
};
