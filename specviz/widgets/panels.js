// Pictures of an explorer: 8-bit frames through a colour table onto canvases, with axes, colour bars,
// a readout under the pointer, facts and messages. One model, so that one message repaints everything.

const rgba = (view) => {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const table = new Uint32Array(bytes.length / 3);
  for (let i = 0; i < table.length; i++)
    table[i] = (255 << 24) | (bytes[3 * i + 2] << 16) | (bytes[3 * i + 1] << 8) | bytes[3 * i];
  return table;
};

const bytesOf = ({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

// Fills `pixels` from a frame: indices into a table, RGB, or bits that light the high bit of `base`.
function fill(pixels, frame, table, base) {
  const bytes = bytesOf(frame);
  if (frame.kind === "bits") {
    const under = bytesOf(base);
    for (let i = 0; i < pixels.length; i++) pixels[i] = table[under[i] | (((bytes[i >> 3] >> (i & 7)) & 1) << 7)];
  } else if (frame.kind === "rgb") {
    for (let i = 0, j = 0; i < pixels.length; i++, j += 3)
      pixels[i] = (255 << 24) | (bytes[j + 2] << 16) | (bytes[j + 1] << 8) | bytes[j];
  } else for (let i = 0; i < pixels.length; i++) pixels[i] = table[bytes[i]];
}

class PanelView {
  constructor(spec, root, send) {
    this.spec = spec;
    this.send = send;
    this.table = spec.table ? rgba(spec.table) : null;
    this.at = null; // the keyboard's position, in frame pixels
    const figure = el("figure", "specviz-panel", root);
    const title = el("figcaption", "specviz-title", figure, spec.title);
    this.figure = figure;
    this.enlarge = el("button", "specviz-enlarge", title, "⤢");
    this.enlarge.type = "button";
    this.enlarge.title = "Show large";
    this.enlarge.setAttribute("aria-label", `Show large: ${spec.title}`);
    this.enlarge.addEventListener("click", () => send("enlarge", spec.key));
    const plot = el("div", "specviz-plot", figure);
    this.yTicks = el("div", "specviz-yticks", plot);
    this.box = el("div", "specviz-frame", plot);
    this.canvas = el("canvas", "specviz-canvas", this.box);
    this.canvas.dataset.panel = spec.key;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${spec.title}. ${spec.description}`);
    this.xTicks = el("div", "specviz-xticks", plot);
    const units = { pixels: "pixels", offset: "pixels from the middle" };
    el("div", "specviz-axis", figure, spec.axis || (units[spec.axes] ?? "cycles per pixel"));
    figure.classList.toggle("specviz-half", spec.axes === "half");
    figure.classList.toggle("specviz-small", spec.small);
    const bar = el("div", "specviz-bar", figure);
    if (spec.bar_table) {
      el("span", "", bar, spec.bar_labels[0]);
      const strip = el("canvas", "specviz-strip", bar);
      el("span", "", bar, spec.bar_labels[1]);
      el("span", "specviz-unit", bar, spec.unit);
      const colours = rgba(spec.bar_table);
      strip.width = colours.length;
      strip.height = 1;
      const row = strip.getContext("2d").createImageData(colours.length, 1);
      new Uint32Array(row.data.buffer).set(colours);
      strip.getContext("2d").putImageData(row, 0, 0);
      strip.setAttribute("aria-hidden", "true");
    } else el("span", "specviz-unit", bar, spec.unit || "\u00a0");
    this.listen();
  }

  position(event) {
    const box = this.canvas.getBoundingClientRect();
    const clamp = (v, n) => Math.min(n - 1, Math.max(0, Math.floor(v * n)));
    return {
      x: clamp((event.clientX - box.left) / box.width, this.canvas.width),
      y: clamp((event.clientY - box.top) / box.height, this.canvas.height),
    };
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => this.send("probe", this.spec.key, this.position(event)));
    canvas.addEventListener("pointerdown", (event) => this.send("pick", this.spec.key, this.position(event)));
    canvas.addEventListener("pointerleave", () => this.send("leave", this.spec.key, { x: 0, y: 0 }));
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 10 : 1;
      const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      this.at ??= { x: canvas.width >> 1, y: canvas.height >> 1 };
      if (move) {
        this.at = {
          x: Math.min(canvas.width - 1, Math.max(0, this.at.x + step * move[0])),
          y: Math.min(canvas.height - 1, Math.max(0, this.at.y + step * move[1])),
        };
        this.send("probe", this.spec.key, this.at);
      } else if (event.key === "Enter" || event.key === " ") this.send("pick", this.spec.key, this.at);
      else return;
      this.cursor();
      event.preventDefault();
      event.stopPropagation(); // JupyterLab would move to another cell
    });
    canvas.addEventListener("blur", () => {
      this.at = null;
      this.cursor();
    });
  }

  cursor() {
    this.box.querySelector(".specviz-cursor")?.remove();
    if (this.at) this.place(el("div", "specviz-cursor", this.box), this.at);
  }

  place(node, { x, y }) {
    node.style.left = `${(100 * (x + 0.5)) / this.canvas.width}%`;
    node.style.top = `${(100 * (y + 0.5)) / this.canvas.height}%`;
  }

  show(frame, base) {
    const { width, height } = frame;
    const context = this.canvas.getContext("2d");
    if (this.image?.width !== width || this.image.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
      this.image = context.createImageData(width, height);
      this.box.style.aspectRatio = `${width} / ${height}`;
      // Small pictures show their pixels; large ones are scaled smoothly.
      this.canvas.classList.toggle("specviz-coarse", Math.max(width, height) <= 128);
    }
    fill(new Uint32Array(this.image.data.buffer), frame, this.table, base);
    context.putImageData(this.image, 0, 0);
    const around = (n) => [`−${n >> 1}`, "0", String((n - 1) >> 1)];
    const [xs, ys] = this.spec.ticks ?? {
      offset: [around(width), around(height)],
      frequency: [["−0.5", "0", "0.5"], ["−0.5", "0", "0.5"]],
      half: [["0", "0.25", "0.5"], ["0", "±0.5", "0"]],
      pixels: [["0", "", String(frame.full_width)], ["0", "", String(frame.full_height)]],
    }[this.spec.axes];
    for (const [box, labels] of [[this.xTicks, xs], [this.yTicks, ys]])
      if (box.dataset.labels !== labels.join()) {
        box.dataset.labels = labels.join();
        box.replaceChildren(...labels.map((label) => el("span", "", null, label)));
      }
  }

  mark(markers) {
    this.box.querySelectorAll(".specviz-marker").forEach((node) => node.remove());
    for (const marker of markers) {
      const node = el("div", `specviz-marker specviz-${marker.kind}`, this.box);
      this.place(node, marker);
    }
  }
}

// One explorer on the whole screen, in large type: by a button or the key p, left by Escape or the same.
function present(root) {
  const button = el("button", "specviz-present", root, "Present");
  Object.assign(button, { type: "button", hidden: !document.fullscreenEnabled, title: "On the whole screen (p); Escape leaves" });
  const explorer = () => root.closest(".specviz-explorer");
  const isOn = () => explorer() !== null && document.fullscreenElement === explorer();
  const leave = () => document.exitFullscreen().catch(() => {}); // it has left by itself
  const turn = () => (isOn() ? leave() : explorer()?.requestFullscreen().catch(() => {})); // the browser may refuse
  const stops = () =>
    [...explorer().querySelectorAll("button, select, input, canvas[tabindex], a, [tabindex='0']")].filter(
      (node) => node.tabIndex >= 0 && !node.disabled && node.checkVisibility(),
    );
  let before = null; // where the keyboard was
  const changed = () => {
    const on = isOn();
    if (on === button.classList.contains("specviz-pressed")) return;
    button.classList.toggle("specviz-pressed", on);
    button.textContent = on ? "Leave" : "Present";
    if (on) {
      before = document.activeElement;
      if (!explorer().contains(before) || before === button) explorer().querySelector(".noUi-handle, select, input, button")?.focus();
    } else if (before?.isConnected) before.focus();
  };
  const key = (event) => {
    const { target } = event;
    if (!explorer()?.contains(target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = target.matches("select, textarea, input:not([type=checkbox], [type=range], [type=file])");
    if (event.key === "p" && !typing) turn();
    else if (event.key === "Escape" && isOn()) leave();
    else if (event.key === "Tab" && isOn()) {
      // Behind it lies the notebook, which nobody sees.
      const all = stops(), last = event.shiftKey ? all[0] : all.at(-1);
      if (target !== last) return;
      (event.shiftKey ? all.at(-1) : all[0]).focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  };
  button.addEventListener("click", turn);
  document.addEventListener("fullscreenchange", changed);
  document.addEventListener("keydown", key, true);
  return () => {
    document.removeEventListener("fullscreenchange", changed);
    document.removeEventListener("keydown", key, true);
  };
}

function render({ model, el: root }) {
  root.classList.add("specviz");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", model.get("label"));
  const row = el("div", "specviz-panels", root);
  row.classList.add(`specviz-in-${model.get("arranged")}`);
  const readout = el("div", "specviz-readout", root);
  readout.setAttribute("aria-live", "polite");
  const message = el("div", "specviz-message", root);
  message.setAttribute("role", "alert");
  const note = el("div", "specviz-note", root);
  note.setAttribute("role", "status");
  const facts = el("div", "specviz-facts", root);
  facts.setAttribute("role", "list");
  facts.setAttribute("aria-label", "Facts");
  // The pointer finds what a fact means by resting on it; the keyboard and a finger by this.
  const explain = el("button", "specviz-explain", root, "What the facts mean");
  explain.type = "button";
  explain.setAttribute("aria-expanded", "false");
  explain.addEventListener("click", () => {
    const shown = root.classList.toggle("specviz-explained");
    explain.setAttribute("aria-expanded", shown);
  });
  let views = {};
  const cleanup = [present(root)];
  const on = (event, handler) => {
    model.on(event, handler);
    cleanup.push(() => model.off(event, handler));
  };

  let over = null; // what says otherwise how the kernel ended, if it has

  // At most one probe is on its way; a moving pointer would queue hundreds.
  let waiting = false, next = null;
  const flush = () => {
    waiting = false;
    if (next) {
      const content = next;
      next = null;
      send(content);
    }
  };
  const send = (content) => {
    if (waiting) {
      next = content;
      return;
    }
    waiting = true;
    model.send(content);
    setTimeout(() => waiting && flush(), 1000); // no kernel answers: do not wait for ever
  };
  const post = (type, panel, at) => {
    if (type === "enlarge") return enlarge(panel);
    if (over) return;
    if (type === "leave") {
      next = null;
      readout.textContent = "\u00a0";
    } else if (type === "pick") model.send({ type, panel, ...at });
    else send({ type, panel, ...at });
  };
  on("msg:custom", (content) => {
    if (content.type !== "readout") return;
    readout.textContent = content.text;
    flush();
  });

  let shownStill = null;
  const build = () => {
    shownStill = null;
    const focused = row.contains(document.activeElement) ? document.activeElement.dataset.panel : null;
    row.replaceChildren();
    views = Object.fromEntries(model.get("panels").map((spec) => [spec.key, new PanelView(spec, row, post)]));
    arrange();
    views[focused]?.canvas.focus({ preventScroll: true }); // whose title has changed while the keyboard was there
  };
  // Of many panels two are large, the first ones to begin with, and the rest stand small beside them.
  let large = [];
  const arrange = () => {
    const keys = Object.keys(views), many = keys.length > 3 && model.get("arranged") === "row";
    row.classList.toggle("specviz-many", many);
    row.classList.toggle("specviz-more", many && keys.length > 4);
    large = [...large.filter((key) => key in views), ...keys.filter((key) => !large.includes(key))].slice(0, 2);
    for (const key of keys) {
      const { figure, enlarge } = views[key];
      figure.classList.toggle("specviz-large", many && large.includes(key));
      enlarge.hidden = !many || large.includes(key);
    }
  };
  // In place of the one that has been large for longer.
  const enlarge = (key) => {
    large = [large[1], key];
    arrange();
    views[key].canvas.focus({ preventScroll: true }); // the button is gone
  };
  const label = () => {
    const explorer = root.closest(".specviz-explorer");
    explorer?.querySelector(".specviz-sentence")?.setAttribute("role", "status");
    for (const player of explorer?.querySelectorAll(".widget-play") ?? [])
      [...player.querySelectorAll("button")].forEach((button, i) => {
        button.title = ["Play or pause", "Stop, and back to the beginning"][i] ?? "";
        button.setAttribute("aria-label", button.title);
      });
    for (const { selector, name, text } of model.get("controls"))
      document.querySelectorAll(selector).forEach((node) => {
        node.setAttribute("aria-label", name);
        if (text !== undefined) node.setAttribute("aria-valuetext", text);
        else {
          // Buttons to choose by; the one that is pressed has a class, which nobody hears.
          node.setAttribute("role", "group");
          for (const button of node.querySelectorAll("button"))
            button.setAttribute("aria-pressed", button.classList.contains("mod-active"));
        }
      });
  };
  // Controls are laid out after this view, and again, and a button that is pressed says so at once.
  let watched = null, asked = 0;
  const controlsChange = new MutationObserver((changes) => {
    const others = ({ target }) => !root.contains(target) && !target.closest?.(".js-plotly-plot");
    // A curve that takes another's place was laid out before it came here.
    const isPlot = (node) => node.matches?.(".js-plotly-plot") || node.querySelector?.(":scope > .js-plotly-plot");
    if (changes.some(({ addedNodes }) => [...addedNodes].some(isPlot))) requestAnimationFrame(fit);
    if (!asked && changes.some(others)) asked = requestAnimationFrame(() => (asked = 0, label()));
  });
  const watchControls = () => {
    const explorer = root.closest(".specviz-explorer");
    if (explorer && explorer !== watched)
      controlsChange.observe((watched = explorer), { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
  };
  cleanup.push(() => controlsChange.disconnect());
  const draw = () => {
    const seq = model.get("seq");
    const still = model.get("still");
    const frames = model.get("frames");
    if (still !== shownStill) for (const key of Object.keys(still)) if (!(key in frames)) views[key]?.show(still[key]);
    shownStill = still;
    for (const key of Object.keys(frames)) views[key]?.show(frames[key], still[key]);
    const markers = model.get("markers");
    for (const key of Object.keys(views)) views[key].mark(markers[key] ?? []);
    facts.replaceChildren(
      ...model.get("facts").map(([name, value, hint]) => {
        const pair = el("div", "specviz-fact", null);
        pair.setAttribute("role", "listitem");
        const shown = [el("div", "specviz-name", pair, name), el("div", "specviz-value", pair, value)];
        // Not of the pair: there it would be read in place of name and value.
        if (hint) for (const node of [...shown, el("div", "specviz-hint", pair, hint)].slice(0, 2)) node.title = hint;
        return pair;
      }),
    );
    facts.hidden = !facts.childElementCount;
    explain.hidden = !facts.querySelector(".specviz-hint");
    message.textContent = model.get("message");
    message.hidden = !message.textContent;
    note.textContent = model.get("note");
    note.hidden = !note.textContent;
    root.dataset.seq = seq;
    requestAnimationFrame(() => {
      label();
      root.dataset.painted = seq;
      root.dispatchEvent(new CustomEvent("specviz:painted", { detail: { seq }, bubbles: true }));
    });
  };
  on("change:panels", () => {
    build();
    draw();
  });
  on("change:seq", draw);
  build();
  readout.textContent = "\u00a0";
  draw();

  const ended = (how) => {
    if (!over) over = showEnd(root, how, model.get("under_way"));
    else if (how === ENDS.autorestarting) over(how); // first it looked like a restart
  };
  cleanup.push(watchKernel(model, root, ended));

  const theme = () => {
    const light = document.body.dataset.jpThemeLight;
    const dark = light ? light === "false" : matchMedia("(prefers-color-scheme: dark)").matches;
    if (model.get("dark") !== dark) {
      model.set("dark", dark);
      model.save_changes();
    }
  };
  const watcher = new MutationObserver(theme);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  cleanup.push(() => watcher.disconnect());
  theme();

  // plotly lays a curve out before it is attached, 700 pixels wide, and then listens to the window only.
  const fit = () =>
    root
      .closest(".specviz-explorer")
      ?.querySelectorAll(".js-plotly-plot")
      .forEach((plot) => plot.offsetWidth && plot._responsiveChartHandler?.());
  const sizes = new ResizeObserver(() => {
    watchControls(); // it has a size since it is on the page
    label();
    fit();
  });
  sizes.observe(root);
  document.addEventListener("plotlywidget-after-render", fit);
  cleanup.push(() => {
    sizes.disconnect();
    document.removeEventListener("plotlywidget-after-render", fit);
  });
  return () => cleanup.forEach((undo) => undo());
}

export default { render };
