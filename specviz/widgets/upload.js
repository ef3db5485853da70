// A button that chooses a file and sends it in parts, each when the kernel has the last one.

const PART = 2 ** 20; // bytes
const PATIENCE = 20_000; // milliseconds until the reader is told that the kernel is busy

const megabytes = (bytes) => (bytes < 1e5 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function render({ model, el: root }) {
  root.classList.add("specviz-upload");
  const input = document.createElement("input");
  input.type = "file";
  input.accept = model.get("accept");
  input.hidden = true;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "jupyter-widgets jupyter-button widget-button";
  const icon = document.createElement("i");
  icon.className = "fa fa-upload";
  icon.setAttribute("aria-hidden", "true");
  button.append(icon, model.get("description"));
  const said = document.createElement("span");
  said.setAttribute("role", "status");
  root.append(button, input, said);

  let current = null; // the file on its way: { request, arrived }
  const say = (text) => (said.textContent = text);
  const finish = (text = "") => {
    clearTimeout(current?.timer);
    current = null;
    say(text);
  };

  const load = async (file) => {
    finish();
    const request = crypto.randomUUID?.() ?? String(Math.random());
    const mine = (current = { request });
    const { name, size, type: mime, lastModified: modified } = file;
    say(`Loading ${name} (${megabytes(size)}) …`);
    const late = () => say(`${name} waits: the kernel is busy or stopped.`);
    try {
      for (let at = 0, last = false; !last; at += PART) {
        const part = await file.slice(at, at + PART).arrayBuffer();
        last = at + PART >= size;
        const arrived = new Promise((resolve) => (mine.arrived = resolve));
        mine.timer = setTimeout(late, PATIENCE);
        model.send({ type: "part", request, name, mime, size, modified, at, last }, {}, [part]);
        const bytes = await arrived;
        clearTimeout(mine.timer);
        if (current !== mine) return;
        if (last) say(`Reading ${name} …`);
        else say(`Loading ${name}: ${Math.floor((100 * bytes) / size)} % of ${megabytes(size)} …`);
      }
    } catch (error) {
      if (current === mine) finish(`${name} cannot be loaded: ${error.message}`);
    }
  };

  const receive = (content) => {
    if (content.request !== current?.request) return;
    if (content.type === "arrived") current.arrived(content.bytes);
    else if (content.type === "refused") finish(content.text);
    else if (content.type === "done") finish();
  };
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // lets the same file be chosen again
    if (file) load(file);
  });
  model.on("msg:custom", receive);
  return () => {
    model.off("msg:custom", receive);
    finish();
  };
}

export default { render };
