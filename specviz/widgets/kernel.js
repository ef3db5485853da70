// What every view of the kernel begins with: how it makes its nodes, and what it does when its kernel ends.

const el = (tag, className, parent, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  parent?.append(node);
  return node;
};

// --- a kernel that ends: the page keeps the widgets, and nobody answers them any more

const ENDS = {
  restarting: "The kernel was restarted",
  autorestarting: "The kernel died and was started again",
  dead: "The kernel died",
  terminating: "The kernel was shut down",
};

// Calls `ended(how)` when the kernel of a model ends, or has ended already; returns what stops the watch.
function watchKernel(model, root, ended) {
  const manager = model.widget_manager;
  const session = manager?.context?.sessionContext;
  const disconnected = () => root.closest(".jupyter-widgets-disconnected") && ended("The kernel was restarted or has ended");
  // ipywidgets takes notice of restarts alone; of other ends JupyterLab tells. A kernel that the server starts again
  // is "restarting" first, and "autorestarting" then.
  const over = (how) => {
    ended(how);
    manager.disconnect?.();
  };
  const status = (_, status) => status in ENDS && over(ENDS[status]);
  const changed = (_, { newValue }) =>
    over(newValue ? "This notebook was given another kernel" : "The kernel was shut down");
  session?.statusChanged.connect(status);
  session?.kernelChanged.connect(changed);
  model.on("comm_live_update", disconnected);
  disconnected();
  return () => {
    session?.statusChanged.disconnect(status);
    session?.kernelChanged.disconnect(changed);
    model.off("comm_live_update", disconnected);
  };
}

// Runs the cells above one and then itself. JupyterLab hands its commands to pages that `specviz lab` serves.
async function runAgain(app, cell) {
  const notebook = app.shell.currentWidget?.content;
  const index = notebook?.widgets?.findIndex((widget) => widget.node === cell) ?? -1;
  if (index < 0) return;
  notebook.deselectAll();
  notebook.activeCellIndex = index;
  if (index === 0 || (await app.commands.execute("notebook:run-all-above"))) {
    notebook.activeCellIndex = index;
    await app.commands.execute("notebook:run-cell");
  }
}

// Says what happened in place of controls that nobody answers, and how to go on; returns what says it otherwise.
function showEnd(root, how, lost) {
  const cell = root.closest(".jp-Cell");
  const prompt = cell?.querySelector(".jp-InputPrompt")?.textContent.replace(":", "").trim();
  root.closest(".specviz-explorer, .specviz-guess-view")?.classList.add("specviz-over");
  const note = el("div", "specviz-end", null);
  note.setAttribute("role", "alert");
  const said = el("span", "", note);
  const say = (how) => (said.textContent = `${how}, and what was computed here is gone. ${lost}`);
  say(how);
  const app = window.jupyterapp;
  if (cell && app?.commands?.hasCommand("notebook:run-all-above")) {
    const again = el("button", "", note, "Start again");
    again.type = "button";
    again.title = "Run the cells above this one, and then this one";
    again.addEventListener("click", () => {
      again.disabled = true;
      runAgain(app, cell).finally(() => (again.disabled = false));
    });
  } else
    el("span", "", note, `To start again, run the cells above and then this one${prompt ? `, ${prompt}` : ""}.`);
  root.prepend(note);
  return say;
}

