// The page of the service: it asks the routes that any other client asks, and nothing else.

const MOST_LABELS = 7;
const MOST_PARTS = 8;
const MOST_NEAR = 3;
const PREVIEW = 900; // longest side in pixels

const whole = new Intl.NumberFormat("en", { style: "percent" });
const tenths = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const percent = (share) => (share < 5e-4 ? "< 0.1%" : tenths.format(share));
const at = (id) => document.getElementById(id);

const state = {
  model: null, // GET /model
  classes: new Map(), // name -> {seen, origin}
  picture: null, // Blob
  answer: null, // of POST /classify
  trial: null, // a described class that only this page knows
  retry: null, // what is done again once an unknown word was replaced
};

// ---- asking the service ----

class Fault extends Error {
  constructor(message, status = 0, near = null) {
    super(message);
    this.status = status;
    this.near = near;
  }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The service cannot be reached: see whether it is running, then try again.");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Fault(body.error ?? `The service answered with status ${response.status}.`, response.status, body.near);
  }
  return body;
}

const sent = (picture, signal) => ({
  method: "POST",
  body: picture,
  headers: { "Content-Type": "application/octet-stream" },
  signal,
});

function changing(method, body) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (at("token").value) headers.Authorization = `Bearer ${at("token").value}`;
  return { method, headers, body: body && JSON.stringify(body) };
}

// ---- writing into the page ----

/** An element with properties, and children that are elements or text: never markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function show(id, error) {
  at(id).hidden = !error;
  at(id).replaceChildren(...(error ? [capital(error.message ?? error)] : []));
}

function badge(name) {
  if (name === state.trial?.name) return make("span", { className: "badge added" }, "on trial");
  const known = state.classes.get(name);
  if (known?.origin === "run-time") return make("span", { className: "badge added" }, "added");
  return known?.seen
    ? make("span", { className: "badge seen" }, "seen")
    : make("span", { className: "badge unseen" }, "unseen");
}

function bar(share) {
  const fill = make("i");
  fill.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("span", { className: "bar", ariaHidden: "true" }, fill);
}

// ---- the model ----

async function showModel() {
  state.model = await ask("model");
  const { version, classes, run_time_classes: added, metrics, backbone, card } = state.model;
  at("card").hidden = !card;
  const counts = [`${classes.seen} seen`, `${classes.unseen} unseen`];
  if (added) counts.push(`${added} added`);
  const facts = [["Model", version === null ? "not released" : `version ${version}`], ["Classes", counts.join(" · ")]];
  const figures = { T1: "Right among unseen (T1)", H: "Right among all (H)" };
  for (const [key, said] of Object.entries(figures)) {
    if (Number.isFinite(metrics[key])) facts.push([said, whole.format(metrics[key])]);
  }
  at("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  if (!backbone) {
    at("drop-text").firstElementChild.textContent = "Choose a row of features";
    at("file-hint").textContent = "as .npy, since the model was trained on features; or drop it here";
    at("file-hint").className = "needed";
    at("file").accept = ".npy";
    at("camera-offer").hidden = true;
    at("verdict").textContent = "Choose a row of features to see what it is.";
  }
}

async function showClasses() {
  const { classes } = await ask("classes");
  state.classes = new Map(classes.map((each) => [each.name, each]));
  const added = classes.filter((each) => each.origin === "run-time");
  at("added").hidden = !added.length;
  at("added").querySelector("ul").replaceChildren(
    ...added.map(({ name }) =>
      make(
        "li",
        {},
        make("span", {}, name),
        make("button", { type: "button", ariaLabel: `Remove ${name}`, onclick: () => remove(name) }, "Remove"),
      ),
    ),
  );
}

async function showSamples() {
  const { samples } = await ask("samples?use=try");
  at("samples").hidden = !samples.length;
  at("samples").querySelector("ul").replaceChildren(
    ...samples.map((sample, number) => {
      const image = make("img", { src: `samples/${sample.id}`, alt: `Sample picture ${number + 1}`, width: 60, height: 60 });
      const button = make("button", { type: "button", ariaPressed: "false" }, image);
      button.onclick = () => trySample(sample, button);
      return make("li", {}, button);
    }),
  );
}

// ---- the picture ----

async function trySample(sample, button) {
  try {
    const response = await fetch(`samples/${sample.id}`);
    if (!response.ok) throw new Fault("This sample cannot be had now: try another.");
    const role = sample.seen ? "; this photograph was not trained on" : ", of which no photograph was trained on";
    await take(await response.blob(), `It shows ${sample.label}${role}.`);
    button.ariaPressed = "true";
  } catch (error) {
    show("picture-fault", error);
  }
}

async function take(picture, said) {
  state.picture = picture;
  state.answer = null;
  for (const button of at("samples").querySelectorAll("button")) button.ariaPressed = "false";
  at("chosen").textContent = said;
  await Promise.all([preview(picture), classify()]);
}

async function preview(picture) {
  const canvas = at("preview");
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(picture);
  } catch {
    // The service reads formats that browsers do not.
  }
  if (picture !== state.picture) return;
  canvas.hidden = !bitmap;
  document.querySelector(".drop").classList.toggle("filled", Boolean(bitmap));
  if (!bitmap) return;
  const scale = Math.min(1, PREVIEW / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
}

const busy = (ids, is) => ids.forEach((id) => at(id).setAttribute("aria-busy", String(is)));
let asking = new AbortController(); // of the present picture
let explaining = new AbortController(); // of the present label

async function classify() {
  asking.abort();
  explaining.abort();
  asking = new AbortController();
  const { signal } = asking;
  show("picture-fault", null);
  busy(["labels", "parts", "near"], true);
  at("verdict").textContent = "Looking …";
  try {
    await ready;
    const top = Math.min(MOST_LABELS, state.classes.size);
    state.answer = await ask(`classify?top=${top}`, sent(state.picture, signal));
    rank(state.answer);
    if (state.trial) await tryAgain(signal);
    await explain(state.answer.label);
  } catch (error) {
    if (error.name === "AbortError") return;
    state.answer = null;
    at("verdict").textContent = "There is no label for this.";
    at("labels").replaceChildren();
    at("parts").hidden = at("near").hidden = true;
    at("why-said").textContent = "The reasons stand here once there is a label.";
    show("picture-fault", error);
  } finally {
    if (!signal.aborted) busy(["labels", "parts", "near"], false);
  }
}

// ---- the ranking ----

function rank(answer) {
  const { temperature, known } = state.model.thresholds;
  const best = answer.alternatives[0].score;
  // Confidences are a softmax of the scores over all classes, so one of them gives the others.
  const shares = answer.alternatives.map(({ score }) => answer.confidence * Math.exp((score - best) / temperature));
  const before = new Map(state.answer.alternatives.map(({ label }, place) => [label, place + 1]));
  const trying = answer !== state.answer;
  at("labels").replaceChildren(
    ...answer.alternatives.map(({ label }, row) => {
      const was = before.get(label);
      const moved = trying && was !== row + 1 ? make("span", { className: "was" }, was ? `was ${was}` : "new") : null;
      const button = make(
        "button",
        { type: "button", ariaPressed: "false", onclick: () => chooseLabel(label) },
        make("span", { className: "place" }, `${row + 1}.`),
        make("span", { className: "what" }, make("span", {}, label), badge(label), moved),
        make("span", { className: "share" }, percent(shares[row])),
        bar(shares[row] / shares[0]),
      );
      button.dataset.label = label;
      return make("li", { className: label === state.trial?.name ? "trial" : "" }, button);
    }),
  );
  const name = make("strong", {}, answer.label);
  const sure = percent(answer.confidence);
  const kind = answer.label === state.trial?.name ? "on trial" : answer.seen ? "seen in training" : "never seen, only described";
  at("verdict").replaceChildren(
    ...(answer.known
      ? [name, ` ${kind}, confidence ${sure}`]
      : [
          make("strong", {}, "None of these"),
          `, it seems: the nearest, ${answer.label}, has a confidence of ${sure}, and ${whole.format(known)} is the least for a label.`,
        ]),
  );
  at("ranking").classList.toggle("none", !answer.known);
  at("legend").hidden = false;
}

async function chooseLabel(label) {
  if (label === state.trial?.name) {
    at("why-said").textContent = `${label} is only tried: keep it, and the reasons can be given.`;
    at("parts").hidden = at("near").hidden = true;
    explaining.abort();
    press(label);
    return;
  }
  await explain(label);
}

const press = (label) => {
  for (const button of at("labels").querySelectorAll("button")) {
    button.ariaPressed = String(button.dataset.label === label);
  }
};

// ---- why ----

async function explain(label) {
  explaining.abort();
  explaining = new AbortController();
  const { signal } = explaining;
  press(label);
  show("why-fault", null);
  busy(["parts", "near"], true);
  try {
    const explained = await ask(`explain?label=${encodeURIComponent(label)}`, sent(state.picture, signal));
    showParts(explained);
    await showNear(explained, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("parts").hidden = at("near").hidden = true;
    at("why-said").textContent = "";
    show("why-fault", error);
  } finally {
    if (!signal.aborted) busy(["parts", "near"], false);
  }
}

function showParts({ label, against, difference, parts, hub_correction, seen_offset }) {
  const rows = parts.slice(0, MOST_PARTS).map((part) => [part.phrase, part.contribution]);
  const rest = parts.slice(MOST_PARTS);
  if (rest.length) {
    rows.push([rest.length === 1 ? "one smaller" : `${rest.length} smaller ones`, rest.reduce((sum, part) => sum + part.contribution, 0)]);
  }
  if (Math.abs(hub_correction) >= 5e-4) rows.push(["correction of classes that are near to everything", hub_correction]);
  if (Math.abs(seen_offset) >= 5e-4) rows.push(["offset of seen classes", seen_offset]);
  const largest = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  at("parts").tBodies[0].replaceChildren(
    ...rows.map(([said, value]) => {
      const fill = make("i");
      fill.style.width = `${(Math.abs(value) / largest) * 50}%`;
      const way = make("div", { className: value < 0 ? "signed less" : "signed", ariaHidden: "true" }, fill);
      return make("tr", {}, make("td", {}, said), make("td", {}, way), make("td", {}, counted(value)));
    }),
  );
  at("parts").tFoot.replaceChildren(
    make("tr", {}, make("td", { colSpan: 2 }, `Together: ${label} scores ${difference < 0 ? "lower" : "higher"} than ${against} by`), make("td", {}, counted(difference))),
  );
  at("why-said").replaceChildren("Why ", make("strong", {}, label), " rather than ", make("strong", {}, against), ":");
  at("parts").hidden = false;
}

const signed = (value, digits) => `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;
const counted = (value) => (value < 0 ? "" : "+") + signed(value, 3);

async function showNear({ label, nearest_seen }, signal) {
  const groups = [
    [`Seen classes described most like ${label}`, nearest_seen.to_label.slice(0, MOST_NEAR)],
    ["Seen classes that the picture looks most like", nearest_seen.to_picture.slice(0, MOST_NEAR)],
  ];
  const query = new URLSearchParams({ use: "class" });
  new Set(groups.flatMap(([, near]) => near.map((each) => each.label))).forEach((name) => query.append("label", name));
  const { samples } = await ask(`samples?${query}`, { signal });
  at("near").replaceChildren(
    ...groups.map(([title, near]) =>
      make(
        "div",
        {},
        make("h3", {}, title),
        make("div", { className: "neighbours" }, ...near.map((each) => neighbour(each, samples))),
      ),
    ),
  );
  at("near").hidden = false;
}

function neighbour({ label, cosine }, samples) {
  const images = samples
    .filter((sample) => sample.label === label)
    .map(({ id }, number) =>
      make("img", { src: `samples/${id}`, alt: `${label}, photograph ${number + 1}`, width: 64, height: 64, loading: "lazy" }),
    );
  const caption = make("figcaption", {}, label, " ", make("small", {}, `likeness ${signed(cosine, 2)}`));
  return make("figure", {}, images.length ? make("div", {}, ...images) : null, caption);
}

// ---- a new class ----

function described() {
  const value = (id) => at(id).value.trim();
  if (!value("new-name")) {
    at("new-name").focus();
    throw new Fault("Give the class a name.");
  }
  const synonyms = value("new-synonyms").split(",").map((each) => each.trim()).filter(Boolean);
  const made = { name: value("new-name"), description: value("new-description"), synonyms };
  const lines = value("new-attributes").split("\n").filter((line) => line.trim());
  if (lines.length) made.attributes = Object.fromEntries(lines.map(attribute));
  return made;
}

function attribute(line) {
  const cut = line.lastIndexOf(":");
  const number = Number(line.slice(cut + 1));
  if (cut < 1 || !line.slice(cut + 1).trim() || !Number.isFinite(number)) {
    throw new Fault(`The attribute “${line.trim()}” has no number: write it as stripes: 1.`);
  }
  return [line.slice(0, cut).trim(), number];
}

/** Do something with the described class; what it cannot be made of is said beside the form. */
async function withNew(action) {
  const buttons = at("new").querySelectorAll(".actions button");
  show("new-fault", null);
  at("new-said").textContent = "";
  state.retry = () => withNew(action);
  buttons.forEach((button) => (button.disabled = true));
  try {
    at("new-said").textContent = await action(described());
  } catch (error) {
    if (error.name !== "AbortError") showNewFault(error);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

function showNewFault(error) {
  show("new-fault", error);
  if (error.status === 401) {
    at("token-field").hidden = false;
    at("token").focus();
  }
  for (const [word, near] of Object.entries(error.near ?? {})) {
    const choices = near.map((other) => make("button", { type: "button", onclick: () => replaceWord(word, other) }, other));
    const line = make("div", { className: "words" }, `${word}:`, ...(choices.length ? choices : ["nothing like it is known"]));
    at("new-fault").append(line);
  }
}

function replaceWord(word, other) {
  const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const whole = new RegExp(`(?<![\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "giu");
  for (const id of ["new-description", "new-synonyms", "new-name"]) at(id).value = at(id).value.replace(whole, () => other);
  at("new-description").focus();
  state.retry();
}

async function tryOut(signal) {
  const form = new FormData();
  form.append("image", state.picture, "picture");
  form.append("candidates", JSON.stringify([...state.answer.alternatives.map(({ label }) => label), state.trial]));
  const top = state.answer.alternatives.length + 1;
  const answer = await ask(`classify_among?top=${top}`, { method: "POST", body: form, signal });
  rank(answer);
  return answer;
}

/** With another picture; a class that cannot be tried any more must not hide what the model says. */
async function tryAgain(signal) {
  try {
    await tryOut(signal);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    forget();
    showNewFault(error);
  }
}

async function tryNew(made) {
  if (!state.answer) throw new Fault("Choose a picture first: then there is a ranking to change.");
  const before = state.trial;
  state.trial = made;
  try {
    const answer = await tryOut(asking.signal);
    at("forget").hidden = false;
    press(state.answer.label);
    const place = answer.alternatives.findIndex(({ label }) => label === made.name) + 1;
    return `${made.name} comes in at place ${place}. It is only tried here, and not stored.`;
  } catch (error) {
    state.trial = before;
    throw error;
  }
}

async function keep(made) {
  const { unknown } = await ask("classes", changing("POST", made));
  forget();
  await refresh();
  const missing = Object.keys(unknown);
  const without = missing.length ? ` These words are not known and were left out: ${missing.join(", ")}.` : "";
  return `${made.name} is a class now, for everyone who asks.${without}`;
}

async function remove(name) {
  state.retry = null;
  show("new-fault", null);
  try {
    await ask(`classes/${encodeURIComponent(name)}`, changing("DELETE"));
    await refresh();
    at("new-said").textContent = `${name} is no class any more.`;
    at("new-name").focus();
  } catch (error) {
    showNewFault(error);
  }
}

function forget() {
  state.trial = null;
  at("forget").hidden = true;
  at("new-said").textContent = "";
  if (state.answer) {
    rank(state.answer);
    press(state.answer.label);
  }
}

async function refresh() {
  await Promise.all([showClasses(), showModel()]);
  if (state.picture) await classify();
}

// ---- what a person does ----

function listen() {
  for (const id of ["file", "camera"]) {
    at(id).addEventListener("change", ({ target }) => {
      if (target.files.length) take(target.files[0], target.files[0].name);
      target.value = ""; // so that the same file can be chosen again
    });
  }
  const over = (is) => at("drop").classList.toggle("over", is);
  // Anywhere: a picture that misses the field must not replace the page.
  addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? over(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const [file] = event.dataTransfer.files;
    if (file) take(file, file.name);
  });
  addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (!file) return;
    event.preventDefault();
    take(file, "As it was pasted.");
  });
  at("new").addEventListener("submit", (event) => {
    event.preventDefault();
    withNew(tryNew);
  });
  at("keep").addEventListener("click", () => withNew(keep));
  at("forget").addEventListener("click", () => {
    forget();
    at("new-name").focus();
  });
}

listen();
const ready = Promise.all([showModel(), showClasses(), showSamples()]);
ready.catch((error) => show("unreachable", error));
