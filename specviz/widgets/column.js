// A choice of many: rows below each other, a field that filters them, and the arrow keys.

const OWN = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };

function render({ model, el: root }) {
  root.classList.add("specviz-column");
  const name = model.get("description");
  const id = `specviz-column-${Math.random().toString(36).slice(2)}`;
  const head = el("div", "specviz-column-head", root);
  const filter = el("input", "specviz-column-filter", head);
  Object.assign(filter, { type: "search", placeholder: `filter ${name}s` });
  filter.setAttribute("aria-label", `Filter ${name}s`);
  const measure = el("span", "specviz-column-measure", head, model.get("measure").split(":")[0]);
  measure.title = model.get("measure");
  const list = el("div", "specviz-column-list", root);
  list.tabIndex = 0;
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", name);
  const none = el("div", "specviz-column-none", root);
  none.setAttribute("role", "status");

  let nodes = [], entries = [];
  const words = () => filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const build = () => {
    entries = model.get("entries");
    nodes = entries.map((entry, i) => {
      const node = el("div", "specviz-column-row", null);
      node.id = `${id}-${i}`;
      node.setAttribute("role", "option");
      const share = entry.share === null ? "" : `${Math.round(100 * entry.share)} %`;
      node.title = [entry.name, entry.kind, entry.detail].filter(Boolean).join("   ");
      node.setAttribute("aria-label", [entry.name, entry.kind, entry.detail, share && `${share} ${measure.textContent}`].filter(Boolean).join(", "));
      const text = el("span", "specviz-column-text", node);
      el("span", "specviz-column-name", text, entry.short);
      el("span", "specviz-column-kind", text, entry.kind);
      const bar = el("span", "specviz-column-bar", node);
      if (share) el("i", "", bar).style.width = share.replace(" ", "");
      else bar.classList.add("specviz-column-empty");
      node.addEventListener("click", () => choose(i));
      return node;
    });
    list.replaceChildren(...nodes);
    sift();
  };
  // Filtered, an entry stands alone, by its whole name; else it is known by where it stands.
  const sift = () => {
    const wanted = words();
    let shown = 0;
    nodes.forEach((node, i) => {
      const { name, short, kind, depth } = entries[i];
      const text = `${name} ${kind}`.toLowerCase();
      node.hidden = !wanted.every((word) => text.includes(word));
      node.querySelector(".specviz-column-name").textContent = wanted.length ? name : short;
      node.style.paddingLeft = `${8 + 11 * (wanted.length ? 0 : Math.min(depth, 12))}px`;
      shown += !node.hidden;
    });
    none.textContent = wanted.length && !shown ? `no ${model.get("description")} matches` : "";
    mark();
  };
  const mark = () => {
    const value = model.get("value");
    list.removeAttribute("aria-activedescendant");
    nodes.forEach((node, i) => {
      const chosen = entries[i].value === value;
      node.setAttribute("aria-selected", chosen);
      if (!chosen || node.hidden) return;
      list.setAttribute("aria-activedescendant", node.id);
      // Not scrollIntoView, which would move the page too.
      const top = node.offsetTop; // of the list, which is positioned
      if (top < list.scrollTop) list.scrollTop = top;
      else if (top + node.offsetHeight > list.scrollTop + list.clientHeight)
        list.scrollTop = top + node.offsetHeight - list.clientHeight;
    });
  };
  const choose = (i) => {
    if (model.get("disabled") || entries[i].value === model.get("value")) return;
    model.set("value", entries[i].value);
    model.save_changes();
    mark();
  };
  list.addEventListener("keydown", (event) => {
    if (!(event.key in OWN) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would move to another cell
    const shown = nodes.map((node, i) => i).filter((i) => !nodes[i].hidden);
    const at = shown.findIndex((i) => entries[i].value === model.get("value"));
    const next = at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + OWN[event.key]));
    if (shown.length) choose(shown[next]);
  });
  filter.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    list.focus();
    const first = nodes.findIndex((node) => !node.hidden);
    if (first >= 0 && !nodes.some((node) => !node.hidden && node.getAttribute("aria-selected") === "true")) choose(first);
  });
  filter.addEventListener("input", sift);
  const on = { "change:entries": build, "change:value": mark };
  for (const [event, handler] of Object.entries(on)) model.on(event, handler);
  build();
  const laidOut = new ResizeObserver(mark); // before it has a size nothing can be scrolled to
  laidOut.observe(list);
  return () => {
    laidOut.disconnect();
    for (const [event, handler] of Object.entries(on)) model.off(event, handler);
  };
}

export default { render };
