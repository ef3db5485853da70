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

  // A figure.
  render({ model, el }) {
    let gone = false, undo;
    page.script.then(({ default: plotly }) => {
      if (gone) return;
      const widget = plotly();
      widget.initialize({ model });
      undo = widget.render({ model, el });
    });
    return () => {
      gone = true;
      undo?.();
    };
  },
};
