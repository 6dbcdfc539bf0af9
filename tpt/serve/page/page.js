"use strict";
// The page of tpt serve: pictures are kept here until they are removed, whatever the service does.
(() => {
  const root = document.documentElement;
  const find = (id) => document.getElementById(id);
  const pictures = []; // {file, url, state, record, error, seen, card}
  let model = null; // what /v1/model tells
  let working = false;
  let waiting = 0; // the timer of the next try
  root.classList.add("js");

  // --- theme: the system's, until the button says otherwise ---
  const dark = matchMedia("(prefers-color-scheme: dark)");
  find("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // --- small things ---
  function make(tag, properties = {}, ...children) {
    const one = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in one) one[name] = value;
      else one.setAttribute(name, value);
    }
    one.append(...children.filter((child) => child !== null));
    return one;
  }

  const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 2 : 1)} %`;
  const say = (text) => { find("status").textContent = text; };

  function headers() {
    const token = find("token").value.trim();
    return token ? { authorization: `Bearer ${token}` } : {};
  }

  function readSettings() {
    const names = find("classes").value.split(/[,\n]/).map((name) => name.trim()).filter(Boolean);
    const own = model && JSON.stringify(names) === JSON.stringify(model.classes);
    return {
      classes: own ? null : names,
      method: find("method").value,
      template: find("start").value === "words" ? find("words").value : null,
    };
  }

  // --- asking the service ---
  class Refusal extends Error {
    constructor(status, message, seconds) {
      super(message);
      Object.assign(this, { status, seconds });
    }
  }

  async function call(path, options = {}) {
    let answer;
    try {
      answer = await fetch(path, { ...options, headers: headers() });
    } catch {
      throw new Refusal(0, "The service does not answer.", 5);
    }
    if (answer.ok) return answer.json();
    const said = await answer.json().catch(() => ({}));
    const seconds = Number(answer.headers.get("retry-after")) || 5;
    throw new Refusal(answer.status, said.error?.message || `The service said ${answer.status}.`, seconds);
  }

  async function learnModel() {
    model = await call("v1/model");
    find("what").textContent = `${model.model ?? "a model"} on ${model.device}, ${model.precision}`;
    find("about").textContent = `tpt-runtime ${model.version}. Pictures go to this service and to no other host.`;
    if (!find("classes").value) {
      find("classes").value = (model.classes ?? ["cat", "dog", "cup", "person", "camera"]).join(", ");
    }
    const before = find("method").value || model.method;
    find("method").replaceChildren(...model.methods.map((method) =>
      make("option", { value: method.name, selected: method.name === before }, method.title)));
    const own = find("start").options[0];
    own.textContent = model.start.learned ? "the service's learned prompt" : model.start.templates[0] ?? "a photo of a {}";
    tellMethod();
  }

  function tellMethod() {
    const method = model?.methods.find((one) => one.name === find("method").value);
    find("summary").textContent = method ? method.summary : "";
  }

  // --- one picture after the other; trouble stops the line and loses none ---
  async function work() {
    if (working) return;
    clearTimeout(waiting);
    working = true;
    try {
      if (!model) await learnModel();
      for (let one; (one = pictures.find((picture) => picture.state === "waits"));) {
        const asked = readSettings();
        say(`Asking about ${one.file.name} ...`);
        try {
          await ask(one, asked);
        } catch (refusal) {
          if (!(refusal instanceof Refusal)) throw refusal;
          if ([0, 401, 403, 429, 503].includes(refusal.status)) throw refusal;
          Object.assign(one, { state: "refused", error: refusal.message, record: null });
        }
        draw(one, asked);
      }
      find("trouble").hidden = true;
      const done = pictures.filter((picture) => picture.state === "answered").length;
      say(pictures.length ? `${done} of ${pictures.length} answered.` : "");
    } catch (refusal) {
      if (!(refusal instanceof Refusal)) throw refusal;
      tellTrouble(refusal);
    } finally {
      working = false;
    }
  }

  async function ask(one, asked) {
    const form = new FormData();
    form.append("images", one.file, one.file.name);
    if (asked.classes) form.append("classes", JSON.stringify(asked.classes));
    if (asked.template) form.append("template", asked.template);
    form.append("method", asked.method);
    form.append("details", "1");
    one.version = version;
    const { records } = await call("v1/predict", { method: "POST", body: form });
    if (one.version !== version) return; // the settings have changed meanwhile: it waits again
    Object.assign(one, { state: "answered", record: records[0], error: null });
  }

  function tellTrouble(refusal) {
    const kept = pictures.length ? " Your pictures are kept." : "";
    const needsToken = refusal.status === 401;
    find("token-field").hidden = !needsToken && find("token-field").hidden;
    const told = needsToken ? "This service asks for a token: write it above." : refusal.message;
    const again = needsToken || refusal.status === 403 ? "" : ` The page tries again in ${refusal.seconds} s.`;
    find("trouble-text").textContent = `${told}${kept}${again}`;
    find("trouble").hidden = false;
    say("");
    for (const one of pictures) if (one.state === "waits") one.card.querySelector(".kind").textContent = "waits";
    if (again) waiting = setTimeout(work, refusal.seconds * 1000);
  }

  // --- pictures come and go ---
  let version = 0; // of the settings

  function add(files) {
    for (const file of files) {
      const one = { file, url: URL.createObjectURL(file), state: "waits", record: null, error: null };
      one.card = make("article", { className: "item", tabIndex: -1, "aria-label": file.name });
      pictures.unshift(one);
      find("cards").prepend(one.card);
      draw(one, readSettings());
    }
    find("tried").hidden = !pictures.length;
    work();
  }

  function remove(one) {
    const place = pictures.indexOf(one);
    pictures.splice(place, 1);
    URL.revokeObjectURL(one.url);
    one.card.remove();
    find("tried").hidden = !pictures.length;
    (pictures[Math.min(place, pictures.length - 1)]?.card ?? find("choose")).focus();
    say(`${one.file.name} was removed.`);
  }

  function askAllAgain() {
    version += 1;
    for (const one of pictures) {
      one.state = "waits";
      one.card.querySelector(".kind").textContent = "waits";
    }
    work();
  }

  // --- drawing ---
  function draw(one, asked) {
    const changed = one.record && one.record.predictions[0].index !== one.record.zero_shot?.index;
    const word = { waits: "waits", refused: "refused" }[one.state] ?? (changed ? "changed" : "unchanged");
    const gone = make("button", { type: "button", className: "small-button", onclick: () => remove(one) }, "Remove");
    gone.setAttribute("aria-label", `Remove ${one.file.name}`);
    one.card.replaceChildren(
      make("header", {},
        make("h3", {}, one.file.name),
        make("span", { className: `kind ${word === "refused" ? "put-wrong" : ""}` }, word),
        gone),
      make("div", { className: "shown" }, drawPicture(one), drawAnswer(one, changed)),
      one.record ? drawCalls(one.file.name, asked) : "");
  }

  function drawPicture(one) {
    const details = one.record?.details;
    const source = details ? `data:image/jpeg;base64,${details.picture}` : one.url;
    const image = make("img", { className: "picture", src: source, alt: one.file.name });
    image.addEventListener("error", () => image.replaceWith(
      make("span", { className: "picture none" }, "shown when it is answered")));
    return make("div", {}, image);
  }

  function drawAnswer(one, changed) {
    if (one.error) return make("div", {}, make("p", {}, one.error));
    if (!one.record) return make("div", {}, make("p", { className: "aside" }, "No answer yet."));
    const { record } = one;
    const { details } = record;
    const name = model.methods.find((method) => method.name === readSettings().method)?.title ?? "";
    const before = details.zero_shot;
    const words = changed
      ? `Adaptation changed the answer from ${before[0].label} to ${record.predictions[0].label}.`
      : `Both say ${record.predictions[0].label}.`;
    return make("div", {},
      make("p", {}, words),
      make("div", { className: "pair" },
        make("div", {}, make("h4", {}, "Zero-shot"), drawBars(before, 1)),
        make("div", {}, make("h4", {}, `Adapted: ${name}`), drawBars(record.predictions, countVotes(record)))),
      drawKept(details),
      make("p", { className: "entropy" }, describe(record)),
      record.warning ? make("p", { className: "aside" }, record.warning) : "");
  }

  const countVotes = (record) => record.predictions.reduce((sum, one) => sum + (one.votes ?? 0), 0);

  function drawBars(answers, votes) {
    const list = make("ol", { className: "answers" });
    for (const answer of answers) {
      const share = answer.score ?? answer.votes / Math.max(1, votes);
      const told = answer.votes === undefined ? percent(share) : `${answer.votes} votes`;
      list.append(make("li", { "data-share": share },
        make("span", {}, make("bdi", {}, answer.label)),
        make("span", { className: "share" }, told), drawBar(share)));
    }
    return list;
  }

  function drawBar(share) {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    const put = (name, width) => {
      const rect = document.createElementNS(space, "rect");
      rect.setAttribute("class", name);
      for (const [key, value] of Object.entries({ width, height: 6, rx: 3 })) rect.setAttribute(key, value);
      svg.append(rect);
    };
    svg.setAttribute("class", "score");
    svg.setAttribute("width", "100%");
    svg.setAttribute("height", "6");
    svg.setAttribute("aria-hidden", "true");
    put("rail", "100%");
    put("fill", `${100 * share}%`);
    return svg;
  }

  function drawKept(details) {
    if (!details.kept.length) return make("p", { className: "aside" }, "This method looks at the plain picture alone.");
    const list = make("ul", { className: "kept" });
    for (const view of details.kept) {
      const source = `data:image/jpeg;base64,${view.picture}`;
      const alt = `View ${view.view}, entropy ${view.entropy.toFixed(3)} nats`;
      list.append(make("li", {}, make("img", { src: source, alt }), view.entropy.toFixed(3)));
    }
    return make("div", {}, make("h4", {}, `Kept views of ${details.views}, with their entropy in nats`), list);
  }

  function describe(record) {
    const { adapt } = record;
    if (!adapt) return "";
    if (adapt.skipped) return `The gate left this picture alone. ${Math.round(adapt.ms)} ms.`;
    const number = (value) => value.toFixed(4);
    const after = adapt.entropy_after === null ? "" : `, after ${number(adapt.entropy_after)}`;
    return `Entropy of the kept views before ${number(adapt.entropy_before)}${after} nats. ${adapt.views_kept} views kept. ${Math.round(adapt.ms)} ms.`;
  }

  // --- the same call, to copy ---
  function drawCalls(name, asked) {
    const address = new URL("v1/predict", location.href).href;
    const fields = Object.entries({
      classes: asked.classes && JSON.stringify(asked.classes),
      template: asked.template,
      method: asked.method,
    }).filter(([, value]) => value);
    const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
    const token = find("token").value.trim();
    const curl = [`curl ${shell(address)}`, `-F ${shell(`images=@${name}`)}`,
      ...fields.map(([key, value]) => `-F ${shell(`${key}=${value}`)}`),
      ...(token ? ['-H "Authorization: Bearer $TOKEN"'] : [])].join(" \\\n  ");
    const python = [
      ...(token ? ["import os"] : []), "import httpx", "",
      `with open(${JSON.stringify(name)}, "rb") as file:`,
      "    answer = httpx.post(", `        ${JSON.stringify(address)},`,
      '        files={"images": file},',
      `        data={${fields.map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`).join(", ")}},`,
      ...(token ? ['        headers={"Authorization": f"Bearer {os.environ[\'TOKEN\']}"},'] : []),
      "        timeout=60,", "    )", 'print(answer.raise_for_status().json()["records"][0])',
    ].join("\n");
    return make("details", {}, make("summary", {}, "The same call"),
      drawCall("curl", curl), drawCall("Python", python));
  }

  function drawCall(title, text) {
    const copy = make("button", { type: "button", className: "plain" }, `Copy ${title}`);
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        say(`${title} call copied.`);
      } catch { // without a secure connection there is no clipboard: select it for Ctrl+C
        getSelection().selectAllChildren(copy.previousElementSibling);
        say("Selected: copy it with Ctrl+C.");
      }
    });
    return make("div", { className: "call" }, make("pre", { tabIndex: 0, "aria-label": title }, text), copy);
  }

  // --- what a person does ---
  find("choose").addEventListener("click", () => find("file").click());
  find("photo").addEventListener("click", () => find("camera").click());
  for (const id of ["file", "camera"]) {
    find(id).addEventListener("change", (event) => {
      add([...event.target.files]);
      event.target.value = "";
    });
  }
  addEventListener("dragover", (event) => {
    event.preventDefault();
    find("drop").classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) find("drop").classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    find("drop").classList.remove("over");
    add([...event.dataTransfer.files]);
  });
  addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) add(files);
  });
  find("settings").addEventListener("submit", (event) => event.preventDefault());
  find("settings").addEventListener("change", () => {
    find("words").hidden = find("start").value !== "words";
    tellMethod();
    askAllAgain();
  });
  find("again").addEventListener("click", work);
  find("clear").addEventListener("click", () => {
    for (const one of [...pictures]) remove(one);
    find("choose").focus();
  });
  work();
})();
