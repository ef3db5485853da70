// A question, a slider or a field, and a button. The kernel computes the answer when the button is pressed.

const PATIENCE = 20_000; // milliseconds until the reader is told that the kernel is busy
const ASK = "Make a guess: then the answer can be revealed.";
const OWN_KEYS = /^(Arrow|Page|Home$|End$|Enter$| $)/; // JupyterLab would move to another cell

function render({ model, el: root }) {
  root.classList.add("specviz-guess");
  root.setAttribute("role", "group");
  const id = `specviz-guess-${Math.random().toString(36).slice(2)}`;
  const question = el("p", "specviz-guess-question", root, model.get("question"));
  question.id = id;
  root.setAttribute("aria-labelledby", id);
  root.addEventListener("keydown", (event) => {
    if (OWN_KEYS.test(event.key) && !event.shiftKey && !event.ctrlKey && !event.metaKey) event.stopPropagation();
  });

  const ticks = model.get("ticks");
  const texts = model.get("texts");
  const row = el("div", "specviz-guess-row", root);
  if (ticks.length) el("span", "specviz-guess-end", row, texts[0]);
  const input = el("input", ticks.length ? "specviz-guess-slider" : "specviz-guess-field", row);
  input.setAttribute("aria-labelledby", id);
  const shown = el("output", "specviz-guess-shown");
  if (ticks.length) {
    Object.assign(input, { type: "range", min: 0, max: ticks.length - 1, step: 1 });
    input.value = ticks.length >> 1;
    input.setAttribute("aria-valuetext", "no guess yet");
    el("span", "specviz-guess-end", row, texts.at(-1));
    shown.textContent = "–";
  } else {
    Object.assign(input, { type: "number", step: "any" });
    shown.textContent = model.get("unit");
  }
  row.append(shown);
  const button = el("button", "specviz-guess-button", row, "Reveal");
  button.type = "button";
  button.disabled = true;
  const status = el("p", "specviz-guess-status", root, ASK);
  status.setAttribute("role", "status");
  const answer = el("div", "specviz-guess-answer", root);
  answer.setAttribute("role", "status");
  answer.hidden = true;

  const value = () => (ticks.length ? ticks[input.value] : input.valueAsNumber);
  const choose = () => {
    const usable = Number.isFinite(value());
    button.disabled = !usable;
    if (!waiting && answer.hidden) status.textContent = usable ? "" : ASK;
    if (!ticks.length || !usable) return;
    shown.textContent = texts[input.value];
    input.setAttribute("aria-valuetext", texts[input.value]);
  };
  let waiting = null;
  const reveal = () => {
    if (button.disabled || waiting) return;
    button.setAttribute("aria-disabled", "true"); // `disabled` would take the keyboard's focus away
    status.textContent = "Computing …";
    const late = () => (status.textContent = "The kernel is busy or stopped: the answer comes when it answers.");
    waiting = setTimeout(late, PATIENCE);
    model.send({ type: "reveal", value: value() });
  };
  for (const kind of ["input", "change", "pointerup"]) input.addEventListener(kind, choose);
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    if (ticks.length) choose(); // where the handle stands
    else reveal();
  });
  button.addEventListener("click", reveal);

  const show = () => {
    clearTimeout(waiting);
    waiting = null;
    button.removeAttribute("aria-disabled");
    status.textContent = model.get("message");
    status.classList.toggle("specviz-guess-error", Boolean(model.get("message")));
    const result = model.get("result");
    answer.replaceChildren();
    answer.hidden = !result.rows;
    root.dataset.revealed = model.get("seq");
    if (!result.rows) return;
    const both = el("div", "specviz-guess-scale", answer);
    both.setAttribute("aria-hidden", "true"); // the sentence below says it
    for (const [i, [name, text, at]] of result.rows.entries()) {
      el("span", "specviz-guess-name", both, name);
      const track = el("span", "specviz-guess-track", both);
      el("i", i ? "specviz-guess-measured" : "specviz-guess-guessed", track).style.left = `${100 * at}%`;
      el("span", "specviz-guess-value", both, text);
    }
    const marks = el("span", "specviz-guess-marks", both);
    for (const [at, text] of result.marks) el("span", "", marks, text).style.left = `${100 * at}%`;
    el("p", "specviz-guess-words", answer, `${result.solved ? "✓" : "✗"} ${result.message}`);
    if (result.notice) el("p", "specviz-guess-notice", answer, result.notice);
  };
  model.on("change:seq", show);
  if (model.get("seq")) show();
  let over = null;
  const unwatch = watchKernel(model, root, (how) => {
    clearTimeout(waiting);
    if (!over) over = showEnd(root, how, "");
    else if (how === ENDS.autorestarting) over(how); // first it looked like a restart
  });
  return () => {
    unwatch();
    clearTimeout(waiting);
    model.off("change:seq", show);
  };
}

export default { render };
