// The page of the service: it asks the routes that any other client asks, and nothing else.

const MOST_LABELS = 7;
const MOST_PARTS = 8;
const MOST_NEAR = 3;
const PHOTOGRAPHS = 2; // of each near class
const PREVIEW = 900; // longest side in pixels
const TRIES = 4; // while the service is busy
const LONGEST_WAIT = 10; // seconds
const BUSY = [429, 503];
const HEADER = /^[\x20-\x7e]+$/; // what fits into one

const whole = new Intl.NumberFormat("en", { style: "percent" });
const tenths = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const percent = (share) => (share < 5e-4 ? "< 0.1%" : tenths.format(share));
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const at = (id) => document.getElementById(id);

const state = {
  model: null, // GET /model
  classes: new Map(), // name -> {seen, origin, created}
  shown: new Map(), // name of a seen class -> ids of its photographs
  picture: null, // Blob
  answer: null, // of POST /classify
  trial: null, // a described class that only this page knows
  label: null, // whose reasons are shown
  retry: null, // what is done again once an unknown word was replaced
  token: "",
};

// ---- asking the service ----

class Fault extends Error {
  constructor(message, status = 0, near = null) {
    super(message);
    this.status = status;
    this.near = near;
  }
}

/** Asks, and while the service is busy again, up to so many times. */
async function ask(path, options = {}, tries = TRIES) {
  progress(1);
  try {
    for (let turn = 1; ; turn += 1) {
      const response = await reach(path, options);
      const body = await response.json().catch(() => ({}));
      if (response.ok) return body;
      const wait = Math.max(1, Number(response.headers.get("Retry-After"))) * turn;
      if (!BUSY.includes(response.status) || turn >= tries || wait > LONGEST_WAIT) throw refusal(response.status, body);
      await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    }
  } finally {
    progress(-1);
  }
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Fault("The service cannot be reached: see whether it is running.");
  }
}

const refusal = (status, { error, near }) => new Fault(error ?? `The service answered with status ${status}.`, status, near);

let underWay = 0;
function progress(more) {
  underWay += more;
  at("progress").hidden = !underWay;
}

/** What another try may mend. */
const passing = ({ status }) => status === 0 || status === 429 || status >= 500;

/** Does it once; where it fails, again when it is needed again. */
function once(action) {
  let made = null;
  return () =>
    (made ??= action().catch((error) => {
      made = null;
      throw error;
    }));
}

const sent = (picture, signal) => ({
  method: "POST",
  body: picture,
  headers: { "Content-Type": "application/octet-stream" },
  signal,
});

function withPicture(fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  form.append("image", state.picture, "picture");
  return form;
}

/** Changes what the service keeps: where that needs the token, a person is asked for it. */
async function change(path, method, body = null) {
  const json = body && !(body instanceof FormData);
  for (;;) {
    const headers = json ? { "Content-Type": "application/json" } : {};
    if (state.token) headers.Authorization = `Bearer ${state.token}`;
    try {
      return await ask(path, { method, headers, body: json ? JSON.stringify(body) : body }, 1);
    } catch (error) {
      if (error.status === 403) throw new Fault("Only its own machine may change what this service keeps: it was started without a token.", 403);
      if (error.status !== 401) throw error;
      const wrong = state.token ? "That is not the token." : null;
      state.token = "";
      state.token = await askToken(wrong);
    }
  }
}

function askToken(fault) {
  const dialog = at("token-dialog");
  at("token").value = "";
  show("token-fault", fault);
  dialog.returnValue = "";
  dialog.showModal();
  at("token").focus();
  return new Promise((resolve, reject) => {
    dialog.onclose = () => (dialog.returnValue ? resolve(dialog.returnValue) : reject(new DOMException("no token", "AbortError")));
  });
}

function giveToken() {
  const token = at("token").value.trim();
  if (HEADER.test(token)) at("token-dialog").close(token);
  else show("token-fault", token ? "That cannot be the token: it has letters or signs that none has." : "Type the token.");
}

// ---- writing into the page ----

/** An element with properties, and children that are elements or text: never markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Tells of an error, or of none; with what a person may try again. */
function show(id, error, again = null) {
  at(id).hidden = !error;
  at(id).replaceChildren(...(error ? [capital(error.message ?? error)] : []));
  if (again && passing(error)) at(id).append(make("button", { type: "button", className: "small", onclick: again }, "Try again"));
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

const FIGURES = {
  T1: ["Right of unseen (T1)", "Of pictures of each unseen class, the share that is named right where only unseen classes are possible"],
  H: ["Right of all (H)", "Where every class is possible: the harmonic mean of what is right of seen and of unseen classes"],
};

async function showModel() {
  state.model = await ask("model");
  const { version, classes, run_time_classes: added, metrics, backbone, card } = state.model;
  at("card").hidden = !card;
  const counts = [`${classes.seen} seen`, `${classes.unseen} unseen`];
  if (added) counts.push(`${added} added`);
  const facts = [["Model", version === null ? "not released" : `version ${version}`], ["Classes", counts.join(" · ")]];
  for (const [key, [said, title]] of Object.entries(FIGURES)) {
    if (!Number.isFinite(metrics[key])) continue;
    const value = whole.format(metrics[key]);
    facts.push([said, card ? make("a", { href: "card" }, value) : value, title]);
  }
  at("facts").replaceChildren(
    ...facts.map(([name, value, title = ""]) => make("div", { title }, make("dt", {}, name), make("dd", {}, value))),
  );
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
  at("added").querySelector("ul").replaceChildren(...added.map(addedClass));
  at("names").replaceChildren(...classes.map(({ name }) => make("option", { value: name })));
}

function addedClass({ name, created }) {
  const since = created ? make("small", {}, `since ${day.format(new Date(created))}`) : null;
  const act = (text, said, onclick) => make("button", { type: "button", className: "small", ariaLabel: `${said} ${name}`, onclick }, text);
  const line = make("li", {}, make("span", {}, name, since));
  const offer = act("Remove", "Remove", () => {
    offer.replaceWith(question);
    no.focus();
  });
  const no = act("No", "No, keep", () => {
    question.replaceWith(offer);
    offer.focus();
  });
  const question = make("span", { className: "line" }, "Remove?", act("Yes", "Yes, remove", () => remove(name)), no);
  line.append(offer);
  return line;
}

async function showSamples() {
  const { samples } = await ask("samples?use=try");
  at("samples").hidden = !samples.length;
  at("samples").querySelector("ul").replaceChildren(
    ...samples.map((sample, number) => {
      const image = photograph(sample.id, `Sample picture ${number + 1}`, 60);
      const button = make("button", { type: "button", ariaPressed: "false" }, image);
      button.onclick = () => trySample(sample, button);
      return make("li", {}, button);
    }),
  );
}

/** An image of a sample; it is asked for again where the service was busy. */
function photograph(id, alt, side) {
  const src = `samples/${id}`;
  const image = make("img", { src, alt, width: side, height: side });
  let turn = 1;
  image.onerror = () => turn < TRIES && setTimeout(() => (image.src = src), 1500 * turn++);
  return image;
}

const ready = once(() => Promise.all([showModel(), showClasses()]));
const samples = once(showSamples);

async function open() {
  show("unreachable", null);
  try {
    await ready();
    await samples();
  } catch (error) {
    show("unreachable", error, open);
  }
}

// ---- the picture ----

async function trySample(sample, button) {
  try {
    const response = await reach(`samples/${sample.id}`);
    if (!response.ok) throw new Fault("This sample cannot be had now.", response.status);
    const role = sample.seen ? "; this photograph was not trained on" : ", of which no photograph was trained on";
    const taken = take(await response.blob(), `It shows ${sample.label}${role}.`);
    button.ariaPressed = "true";
    await taken;
  } catch (error) {
    show("picture-fault", error, () => trySample(sample, button));
  }
}

async function take(picture, said) {
  choose(picture, said);
  const answered = classify();
  await preview(picture);
  if (picture === state.picture) reveal("ranking");
  await answered;
}

function choose(picture, said) {
  state.picture = picture;
  state.answer = null;
  for (const button of at("samples").querySelectorAll("button")) button.ariaPressed = "false";
  at("chosen").textContent = said;
  at("clear").hidden = !picture;
}

function clear() {
  asking.abort();
  explaining.abort();
  busy(["labels", "parts", "near"], false);
  choose(null, "");
  forget();
  empty(state.model?.backbone === null ? "Choose a row of features to see what it is." : "Choose a picture to see what it is.");
  show("picture-fault", null);
  at("preview").hidden = true;
  at("drop").classList.remove("filled");
  at("file").focus();
}

/** On a screen that shows one panel at a time. */
function reveal(id) {
  if (matchMedia("(min-width: 56rem)").matches) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  at(id).scrollIntoView({ behavior: still ? "auto" : "smooth" });
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
  at("drop").classList.toggle("filled", Boolean(bitmap));
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
  const { picture } = state;
  show("picture-fault", null);
  busy(["labels", "parts", "near"], true);
  at("verdict").textContent = "Looking …";
  try {
    await ready();
    show("unreachable", null);
    samples().catch(() => {}); // without them pictures are labelled as well
    fits(picture);
    const top = Math.min(MOST_LABELS, state.classes.size);
    const answer = await ask(`classify?top=${top}`, sent(picture, signal));
    if (isNews(answer)) await Promise.all([showModel(), showClasses()]);
    signal.throwIfAborted();
    state.answer = answer;
    rank(answer);
    if (state.trial) await tryAgain(signal);
    if (state.trial) noReasons("Choose a label to see what speaks for it.");
    else await explainInView(answer.label);
  } catch (error) {
    if (error.name === "AbortError") return;
    state.answer = null;
    empty("There is no label for this.");
    show("picture-fault", error, classify);
  } finally {
    if (!signal.aborted) busy(["labels", "parts", "near"], false);
  }
}

function fits(picture) {
  const most = state.model.limits.max_bytes;
  if (picture.size > most) throw new Fault(`The file has ${megabytes(picture.size)}, and ${megabytes(most)} is the most: choose a smaller one.`, 413);
}

const megabytes = (bytes) => `${(bytes / 1e6).toLocaleString("en", { maximumSignificantDigits: 3 })} MB`;

/** Whether another model answered, or a class that somebody else added. */
const isNews = ({ model, alternatives }) =>
  model.version !== state.model.version || alternatives.some(({ label }) => !state.classes.has(label));

function empty(said) {
  at("verdict").textContent = said;
  at("labels").replaceChildren();
  at("legend").hidden = at("feedback").hidden = true;
  noReasons("The reasons stand here once there is a label.");
}

// ---- the ranking ----

function rank(answer) {
  const best = answer.alternatives[0].confidence;
  const before = new Map(state.answer.alternatives.map(({ label }, place) => [label, place + 1]));
  const trying = answer !== state.answer;
  at("labels").replaceChildren(
    ...answer.alternatives.map(({ label, confidence }, row) => {
      const was = before.get(label);
      const moved = trying && was !== row + 1 ? make("span", { className: "was" }, was ? `was ${was}` : "new") : null;
      const button = make(
        "button",
        { type: "button", ariaPressed: "false", onclick: () => chooseLabel(label) },
        make("span", { className: "place" }, `${row + 1}.`),
        make("span", { className: "what" }, make("span", {}, label), badge(label), moved),
        make("span", { className: "share" }, percent(confidence)),
        bar(confidence / best),
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
          `, it seems: ${answer.label} is the nearest, with a confidence of ${sure}, too low for a label.`,
        ]),
  );
  at("ranking").classList.toggle("none", !answer.known);
  at("legend").hidden = false;
  offerFeedback(!trying, answer.known);
}

async function chooseLabel(label) {
  if (label === state.trial?.name) {
    explaining.abort();
    noReasons(`${label} is only tried: keep it, and the reasons can be given.`);
    press(label);
  } else {
    await explain(label);
  }
  reveal("why");
}

const press = (label) => {
  for (const button of at("labels").querySelectorAll("button")) {
    button.ariaPressed = String(button.dataset.label === label);
  }
};

// ---- was it right ----

function offerFeedback(is, known) {
  at("feedback").hidden = !is;
  at("feedback-ask").hidden = !known;
  at("correct").value = at("feedback-said").textContent = "";
  show("feedback-fault", null);
  openCorrection(!known);
}

function openCorrection(is) {
  at("correction").hidden = !is;
  at("wrong").ariaExpanded = String(is);
}

async function feedback(label) {
  show("feedback-fault", null);
  const { answer } = state;
  try {
    if (!label) throw new Fault("Say what it is.");
    const given = { answer: answer.id, label };
    await change("feedback", "POST", state.model.backbone ? withPicture(given) : given);
    if (answer !== state.answer) return;
    at("feedback-ask").hidden = true;
    openCorrection(false);
    at("feedback-said").textContent = "Thank you: a person looks at it before the next training.";
  } catch (error) {
    if (error.name !== "AbortError") show("feedback-fault", error);
  }
}

// ---- why ----

let inView = false; // the panel
let due = null; // a label, to be explained once the panel is in view
new IntersectionObserver((entries) => {
  inView = entries.at(-1).isIntersecting;
  if (inView && due) explain(due);
}).observe(at("why"));

/** The picture is sent once more for its reasons: not before somebody can see them. */
async function explainInView(label) {
  if (inView) return explain(label);
  noReasons(`Why ${label} …`);
  due = label;
  press(label);
}

function noReasons(said) {
  due = state.label = null;
  at("why-said").textContent = said;
  at("parts").hidden = at("near").hidden = at("compare").hidden = true;
  show("why-fault", null);
}

async function explain(label, against = "") {
  explaining.abort();
  explaining = new AbortController();
  const { signal } = explaining;
  due = null;
  press(label);
  show("why-fault", null);
  busy(["parts", "near"], true);
  try {
    const asked = new URLSearchParams(against ? { label, against } : { label });
    const explained = await ask(`explain?${asked}`, sent(state.picture, signal));
    showParts(explained);
    await showNear(explained, signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!against) noReasons("");
    show("why-fault", error, () => explain(label, against));
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
  if (state.label !== label) at("against").value = "";
  state.label = label;
  at("parts").hidden = at("compare").hidden = false;
}

const signed = (value, digits) => `${value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;
const counted = (value) => (value < 0 ? "" : "+") + signed(value, 3);

async function showNear({ label, nearest_seen }, signal) {
  const groups = [
    [`Seen classes described most like ${label}`, nearest_seen.to_label.slice(0, MOST_NEAR)],
    ["Seen classes that the picture looks most like", nearest_seen.to_picture.slice(0, MOST_NEAR)],
  ];
  await findPhotographs(groups.flatMap(([, near]) => near.map((each) => each.label)), signal);
  at("near").replaceChildren(
    ...groups.map(([title, near]) =>
      make(
        "div",
        {},
        make("h3", {}, title),
        make("div", { className: "neighbours" }, ...near.map(neighbour)),
      ),
    ),
  );
  at("near").hidden = false;
}

/** Each class is asked for once. */
async function findPhotographs(labels, signal) {
  const wanted = [...new Set(labels)].filter((label) => !state.shown.has(label));
  if (!wanted.length) return;
  const query = new URLSearchParams([["use", "class"], ...wanted.map((label) => ["label", label])]);
  const found = (await ask(`samples?${query}`, { signal })).samples;
  for (const wish of wanted) state.shown.set(wish, found.filter(({ label }) => label === wish).map(({ id }) => id));
}

function neighbour({ label, cosine }) {
  const images = state.shown.get(label).slice(0, PHOTOGRAPHS).map((id, number) => photograph(id, `${label}, photograph ${number + 1}`, 64));
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
  const buttons = [...at("new").querySelectorAll(".actions button")];
  if (buttons[0].ariaDisabled === "true") return;
  show("new-fault", null);
  at("new-said").textContent = "";
  state.retry = () => withNew(action);
  buttons.forEach((button) => (button.ariaDisabled = "true")); // disabled ones would lose the keyboard
  try {
    at("new-said").textContent = await action(described());
  } catch (error) {
    if (error.name !== "AbortError") showNewFault(error);
  } finally {
    buttons.forEach((button) => (button.ariaDisabled = "false"));
  }
}

function showNewFault(error) {
  show("new-fault", error);
  for (const [word, near] of Object.entries(error.near ?? {})) {
    const choices = near.map((other) => make("button", { type: "button", className: "small", onclick: () => replaceWord(word, other) }, other));
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
  const candidates = JSON.stringify([...state.answer.alternatives.map(({ label }) => label), state.trial]);
  const top = state.answer.alternatives.length + 1;
  const answer = await ask(`classify_among?top=${top}`, { method: "POST", body: withPicture({ candidates }), signal });
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
  const { unknown } = await change("classes", "POST", made);
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
    await change(`classes/${encodeURIComponent(name)}`, "DELETE");
    await refresh();
    at("new-said").textContent = `${name} is no class any more.`;
    (at("added").querySelector("button") ?? at("new-name")).focus();
  } catch (error) {
    if (error.name !== "AbortError") showNewFault(error);
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
  const holdsFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files");
  // Anywhere: a picture that misses the field must not replace the page. Text goes where it is dropped.
  addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    over(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? over(false));
  addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
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
  const submitted = (form, action) =>
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      action();
    });
  submitted(at("new"), () => withNew(tryNew));
  submitted(at("compare"), () => explain(state.label, at("against").value.trim()));
  submitted(at("feedback"), () => feedback(at("correct").value.trim()));
  submitted(at("token-dialog").firstElementChild, giveToken);
  at("no-token").addEventListener("click", () => at("token-dialog").close(""));
  at("clear").addEventListener("click", clear);
  at("right").addEventListener("click", () => feedback(state.answer.label));
  at("wrong").addEventListener("click", () => {
    openCorrection(at("correction").hidden);
    if (!at("correction").hidden) at("correct").focus();
  });
  at("keep").addEventListener("click", () => withNew(keep));
  at("forget").addEventListener("click", () => {
    forget();
    at("new-name").focus();
  });
}

listen();
open();
