// Three buttons that ask the kernel for a file and hand it to the browser.

const KINDS = { png: "image/png", svg: "image/svg+xml", csv: "text/csv;charset=utf-8" };
const PATIENCE = 20_000; // milliseconds until the reader is told that the kernel is busy

function render({ model, el: root }) {
  root.classList.add("specviz-export");
  root.setAttribute("role", "group");
  root.setAttribute("aria-label", `Save: ${model.get("label")}`);
  const waiting = {}; // by request, so that a second view of this widget does not save the file again
  const said = document.createElement("span");
  said.className = "specviz-export-said";
  said.setAttribute("role", "status");
  const say = (text) => (said.textContent = text);

  const finish = (request) => {
    const button = waiting[request]?.button;
    clearTimeout(waiting[request]?.timer);
    delete waiting[request];
    button?.removeAttribute("aria-disabled");
  };

  for (const kind of Object.keys(KINDS)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = kind.toUpperCase();
    button.setAttribute("aria-label", `Save ${model.get("label")} as ${kind.toUpperCase()}`);
    button.title = kind === "csv" ? "Save its numbers" : "Save its picture";
    button.addEventListener("click", () => {
      if (button.hasAttribute("aria-disabled")) return;
      const request = crypto.randomUUID?.() ?? String(Math.random());
      button.setAttribute("aria-disabled", "true"); // `disabled` would take the keyboard's focus away
      say("");
      const late = () => {
        say("The kernel is busy or stopped: the file comes when it answers.");
        button.removeAttribute("aria-disabled");
      };
      waiting[request] = { button, timer: setTimeout(late, PATIENCE) };
      model.send({ type: "save", kind, request });
    });
    root.append(button);
  }
  root.append(said);

  const receive = (content, buffers) => {
    if (!(content.request in waiting)) return;
    finish(content.request);
    say(content.type === "file" ? "" : content.text);
    if (content.type !== "file") return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([buffers[0]], { type: KINDS[content.kind] }));
    link.download = content.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a browser may read it after the click
  };
  model.on("msg:custom", receive);
  return () => {
    model.off("msg:custom", receive);
    Object.keys(waiting).forEach(finish);
  };
}

export default { render };
