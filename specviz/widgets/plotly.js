// A small script in plotly's place. anywidget gives a model two seconds to load its script and then drops every
// message to it, for good; plotly's has 5 MB, and took longer on a busy machine. This one is there at once, and
// plotly's comes once a kernel, by a widget of its own, instead of once a figure.

const page = (window.specvizPlotly ??= (() => {
  let done;
  const script = new Promise((resolve) => (done = resolve));
  return { script, done };
})());

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
    const name = () => el.setAttribute("aria-label", model.get("label"));
    const hide = () => el.querySelectorAll("svg.main-svg").forEach((svg) => svg.setAttribute("aria-hidden", "true"));
    name();
    model.on("change:label", name);
    document.addEventListener("plotlywidget-after-render", hide);
    page.script.then(({ default: plotly }) => {
      if (gone) return;
      const widget = plotly();
      widget.initialize({ model });
      undo = widget.render({ model, el });
    });
    return () => {
      gone = true;
      model.off("change:label", name);
      document.removeEventListener("plotlywidget-after-render", hide);
      undo?.();
    };
  },
};
