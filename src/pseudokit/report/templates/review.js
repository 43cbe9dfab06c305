"use strict";
// Everything from the data reaches the page through textContent, value or an image address: never as markup.
const content = JSON.parse(document.getElementById("content").textContent);
const { samples, queues, classes } = content;
const memory = "review:" + content.run + ":" + content.key;
const find = (id) => document.getElementById(id);
const placeOf = new Map(samples.map((sample, place) => [sample.id, place]));
const CARD = { width: 136, height: 158 }; // with the gap of 8

let made = new Map(); // id → {action, label}
let history = []; // steps; a step is a list of [id, what was made before or null]
let at = queues[0].places[0], anchor = at; // places of the current sample and of the one where a range begins
let view = "single", queue = 0, pair = "", status = "all";
let shown = []; // places that pass the filters, in order
let selected = new Set(); // places selected in the grid
let cards = new Map(); // place → card, of what the grid can show right now
let byPointer = false; // whether the last input came from a pointer

function remember() {
  const kept = { made: [...made], history: history.slice(-20), at, view, queue, pair, status };
  try { localStorage.setItem(memory, JSON.stringify(kept)); } catch { find("forgets").hidden = false; }
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(memory));
    if (!kept) return;
    made = new Map(kept.made);
    history = kept.history;
    ({ at, view, queue, pair, status } = kept);
    if (!samples[at] || !queues[queue]) at = queue = 0;
  } catch { /* a sandboxed frame or a private window: begin anew */ }
}

function element(tag, className, text) {
  const built = document.createElement(tag);
  if (className) built.className = className;
  if (text !== undefined) built.textContent = text;
  return built;
}

function say(text) { find("message").textContent = text; }
function percent(value) { return value > 0.9999 ? "≈ 100 %" : (100 * value).toFixed(2) + " %"; }
function describe(decision) { return decision.action + (decision.action === "relabel" ? " → " + decision.label : ""); }
function blind() { return ["audit", "to label"].includes(queues[queue].name); }
function pairOf(sample) { return JSON.stringify([sample.given_label, sample.predicted]); }
function suggests(sample) { return sample.predicted !== "" && !blind(); }

function change(sample) {
  const given = sample.given_label || (suggests(sample) ? "" : "no label given");
  return suggests(sample) ? [given, "→ " + sample.predicted] : [given];
}

function picture(address) {
  if (!address) return element("span", "picture gone", "not readable");
  return Object.assign(element("img", "picture"), { src: address, alt: "" });
}

function applyFilters() {
  const { places } = queues[queue];
  shown = places.filter((place) => (pair === "" || blind() || pairOf(samples[place]) === pair)
    && (status === "all" || (status === "done") === made.has(samples[place].id)));
  const passed = new Set(shown);
  if (shown.length && !passed.has(at)) { // go on where the current one would stand
    at = places.slice(Math.max(0, places.indexOf(at))).find((place) => passed.has(place)) ?? shown[shown.length - 1];
  }
  selected = new Set([...selected].filter((place) => passed.has(place)));
}

function fillPairs() {
  const groups = Map.groupBy(queues[queue].places, (place) => pairOf(samples[place]));
  const sorted = [...groups].sort((one, other) => other[1].length - one[1].length);
  const option = (text, places, name) => new Option(text + " (" + places.length + ")", name);
  const options = sorted.map(([name, places]) => option(change(samples[places[0]]).join(" "), places, name));
  find("pair").replaceChildren(option("all pairs", queues[queue].places, ""), ...options);
  if (!groups.has(pair)) pair = "";
  find("pair").value = pair;
  find("pair").hidden = blind();
}

function refresh() {
  applyFilters();
  paint();
  remember();
}

function paint() {
  document.body.className = view;
  find("single").hidden = view !== "single";
  find("grid").hidden = view !== "grid";
  find("view").replaceChildren(view === "grid" ? "one by one " : "grid ", element("kbd", "", "v"));
  if (view === "grid") paintGrid(true);
  else find("single").replaceChildren(shown.length ? single(samples[at]) : "Nothing passes the filters.");
  const { places } = queues[queue];
  const done = places.filter((place) => made.has(samples[place].id)).length;
  find("count").textContent = done + " of " + places.length + " reviewed";
  Object.assign(find("progress"), { max: places.length, value: done });
  const where = shown.length ? shown.indexOf(at) + 1 + " of " + shown.length : "none";
  find("shown").textContent = where + " shown" + (selected.size ? ", " + selected.size + " selected" : "");
  const rows = targets().map((place) => samples[place]);
  const disable = (name, off) => { document.querySelector("[data-do=" + name + "]").disabled = off; };
  disable("keep", !rows.some((sample) => sample.given_label !== ""));
  disable("accept", !rows.some(suggests));
  disable("acceptAll", blind());
  disable("undo", !history.length);
  find("class").value = suggests(samples[at]) ? samples[at].predicted : samples[at].given_label || classes[0];
}

function single(sample) {
  const box = element("div", "sample"), side = element("div"), open = suggests(sample), decided = made.get(sample.id);
  side.append(factList("suggestion", [["given", sample.given_label], ["suggested", open ? sample.predicted : ""]]));
  if (sample.duplicates && !blind()) {
    side.append(element("span", "badge", "duplicates disagree"), element("span", "", " " + sample.duplicates));
  }
  side.append(factList("facts", [
    ["confidence", open && sample.confidence !== null ? percent(sample.confidence) : ""],
    ["p_wrong", open && sample.p_wrong !== null ? percent(sample.p_wrong) : ""],
    ["the run's decision", open ? sample.decision : ""],
    ["id", sample.id],
    ["your decision", decided ? describe(decided) : "–", decided && "human"],
  ]));
  if (open) side.append(compared(sample));
  box.append(picture(sample.image), side);
  return box;
}

function factList(className, facts) {
  const list = element("dl", className);
  for (const [name, text, kind] of facts.filter((fact) => fact[1] !== "")) {
    const entry = element("div");
    entry.append(element("dt", "", name), element("dd", kind, text));
    list.append(entry);
  }
  return list;
}

function compared(sample) {
  const box = element("div", "examples");
  [sample.given_label, sample.predicted].forEach((name, side) => {
    const near = sample.near[side].map((place) => content.examples[place]).filter(Boolean);
    if (!near.length || (side === 1 && name === sample.given_label)) return;
    const group = element("div");
    group.append(element("h2", "", "nearest examples of " + name), ...near.map(picture));
    box.append(group);
  });
  return box;
}

// the grid makes only the cards that can be seen

function columns() { return Math.max(1, Math.floor((find("grid").clientWidth - 12) / CARD.width)); }

function buildCard(place, number) {
  const sample = samples[place], decision = made.get(sample.id);
  const card = element("div", "card" + (decision ? " reviewed" : "") + (place === at ? " current" : ""));
  Object.assign(card, { id: "card-" + place, role: "option", ariaSelected: selected.has(place) });
  Object.assign(card, { ariaSetSize: shown.length, ariaPosInSet: number, title: change(sample).join(" ") });
  card.dataset.place = place;
  const pairOfNames = element("span", "pair");
  pairOfNames.append(...change(sample).map((text) => element("span", "", text)));
  card.append(picture(sample.image), pairOfNames);
  if (decision) card.append(element("span", "human", "✓ " + describe(decision)));
  else if (suggests(sample) && sample.confidence !== null) {
    card.append(element("span", "quiet", percent(sample.confidence) + " · " + sample.decision));
  }
  if (sample.duplicates && !blind()) card.append(element("span", "badge", "duplicates disagree"));
  return card;
}

function paintGrid(anew) {
  const grid = find("grid"), across = columns();
  if (anew) {
    grid.firstChild.replaceChildren();
    grid.firstChild.style.height = Math.ceil(shown.length / across) * CARD.height + "px";
    cards = new Map();
    reveal(across);
  }
  const first = Math.max(0, Math.floor(grid.scrollTop / CARD.height) - 1) * across;
  const last = Math.min(shown.length, (Math.ceil((grid.scrollTop + grid.clientHeight) / CARD.height) + 1) * across);
  const visible = new Set(shown.slice(first, last));
  for (const [place, card] of cards) if (!visible.has(place)) { card.remove(); cards.delete(place); }
  const width = Math.floor((grid.clientWidth - 12) / across);
  for (let i = first; i < last; i++) {
    if (cards.has(shown[i])) continue;
    const card = buildCard(shown[i], i + 1);
    card.style.width = width - 8 + "px";
    card.style.transform = "translate(" + (i % across) * width + "px," + Math.floor(i / across) * CARD.height + "px)";
    grid.firstChild.append(card);
    cards.set(shown[i], card);
  }
  grid.setAttribute("aria-activedescendant", "card-" + at);
}

function reveal(across) {
  const grid = find("grid"), top = Math.floor(Math.max(0, shown.indexOf(at)) / across) * CARD.height;
  grid.scrollTop = Math.min(top, Math.max(grid.scrollTop, top + CARD.height + 12 - grid.clientHeight));
}

function targets() {
  if (!shown.length) return [];
  return view === "grid" && selected.size ? shown.filter((place) => selected.has(place)) : [at];
}

/** decision: sample → {action, label}, or null where the action has no meaning. One call is one step of undo. */
function decide(places, decision) {
  const step = [];
  for (const place of places) {
    const { id } = samples[place], decided = decision(samples[place]);
    if (!decided) continue;
    step.push([id, made.get(id) || null]);
    made.set(id, decided);
  }
  if (!step.length) { say("nothing here that this could decide"); return; }
  history.push(step);
  const [[id]] = step;
  say(step.length === 1 ? id + ": " + describe(made.get(id)) : step.length + " decided; u takes them back");
  selected.clear();
  const index = shown.indexOf(places[places.length - 1]);
  const open = shown.findIndex((place, i) => i > index && !made.has(samples[place].id));
  at = shown[open < 0 ? Math.min(index + 1, shown.length - 1) : open];
  refresh();
}

function undo() {
  const step = history.pop();
  if (!step) { say("nothing to undo"); return; }
  for (const [id, before] of step) { if (before) made.set(id, before); else made.delete(id); }
  at = placeOf.get(step[0][0]) ?? at;
  say(step.length === 1 ? step[0][0] + ": undone" : step.length + " undone");
  refresh();
}

const keep = (sample) => (sample.given_label === "" ? null : { action: "keep", label: sample.given_label });
const take = (label) => (sample) => (label === sample.given_label ? keep(sample) : { action: "relabel", label });
const accept = (sample) => (suggests(sample) ? take(sample.predicted)(sample) : null);
const without = (action) => () => ({ action, label: "" });

function go(index, extend) {
  if (!shown.length) return;
  at = shown[Math.max(0, Math.min(shown.length - 1, index))];
  if (extend && view === "grid") selectRange(); else anchor = at;
  refresh();
}

function move(key, extend) {
  const across = view === "grid" ? columns() : 1;
  const page = view === "grid" ? 4 * across : 10;
  const steps = {
    j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across,
    PageDown: page, PageUp: -page, End: Infinity, Home: -Infinity,
  };
  if (!(key in steps)) return false;
  go(shown.indexOf(at) + steps[key], extend);
  return true;
}

function selectRange() {
  const ends = [shown.indexOf(anchor), shown.indexOf(at)].sort((one, other) => one - other);
  for (const place of shown.slice(Math.max(0, ends[0]), ends[1] + 1)) selected.add(place);
}

function toggle() {
  if (!shown.length) return;
  if (!selected.delete(at)) selected.add(at);
  anchor = at;
}

function clickCard(event) {
  const card = event.target.closest(".card");
  if (!card) return;
  at = Number(card.dataset.place);
  if (event.shiftKey) selectRange(); else toggle();
  refresh();
}

function changeView() {
  view = view === "grid" ? "single" : "grid";
  selected.clear();
  refresh();
  focusView();
}

function focusView() { find(view).focus({ preventScroll: true }); }

function corrections() {
  const isFormula = (text) => /^'*[=+\-@\t\r＝＋－＠]./s.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
  const escapeFormula = (text) => (isFormula(text) ? "'" + text : text); // see data/csv_text.py
  const quote = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  const line = (cells) => cells.map(escapeFormula).map(quote).join(",") + "\n";
  const rows = samples.filter((sample) => made.has(sample.id)).map((sample) => {
    const { action, label } = made.get(sample.id);
    return line([sample.id, sample.given_label, action, label, sample.sha256]);
  });
  return [line(["id", "given_label", "action", "label", "image_sha256"]), ...rows];
}

function save() {
  const lines = corrections(), href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  Object.assign(element("a"), { href, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
  say(lines.length - 1 + " corrections exported");
  if (find("forgets").hidden) return;
  find("csv").value = lines.join(""); // a frame without memory often allows no download either
  find("text").showModal();
  find("csv").select();
}

const actions = {
  accept: () => decide(targets(), accept),
  acceptAll: () => { if (view === "grid") decide(shown.filter((place) => !made.has(samples[place].id)), accept); },
  keep: () => decide(targets(), keep),
  choose: () => decide(targets(), take(find("class").value)),
  ambiguous: () => decide(targets(), without("ambiguous")),
  drop: () => decide(targets(), without("drop")),
  undo,
  next: () => move("j"),
  previous: () => move("k"),
  view: changeView,
  toggle: () => { toggle(); refresh(); },
  selectAll: () => { if (view === "grid") { selected = new Set(shown); refresh(); } },
  selectNone: () => { selected.clear(); refresh(); },
  pick: () => { say("choose a class, then Enter; Esc goes back"); find("class").focus(); },
  filter: () => find("queue").focus(),
  help: () => find("help").showModal(),
  save,
};
const keys = {
  a: "accept", g: "keep", c: "pick", x: "ambiguous", d: "drop", u: "undo", v: "view", s: "selectAll", f: "filter",
  e: "save", "?": "help", " ": "toggle", Enter: "view", Escape: "selectNone",
};
const digits = classes.slice(0, 10).every((name) => /^\d$/.test(name)) // classes that are digits have their own key
  ? classes.slice(0, 10) : [..."1234567890"].slice(0, classes.length);

function onKey(event) {
  byPointer = false;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) { if (event.key === "?") find("help").close(); return; }
  const tag = event.target.tagName, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (tag === "SELECT") { // its own keys choose; a letter there is a class or filter, not an action
    if (key !== "Escape" && key !== "Enter") return;
    event.preventDefault();
    if (key === "Enter" && event.target === find("class")) actions.choose();
    focusView();
    return;
  }
  if (tag === "BUTTON" && (key === " " || key === "Enter")) return;
  if (view === "single" && key === " ") return; // scrolls
  const number = digits.indexOf(key), name = key === "a" && event.shiftKey ? "acceptAll" : keys[key];
  if (number >= 0) decide(targets(), take(classes[number]));
  else if (name) actions[name]();
  else if (!move(key, event.shiftKey)) return;
  event.preventDefault();
}

function onFilter() {
  if (Number(find("queue").value) !== queue) { selected.clear(); at = queues[find("queue").value].places[0]; }
  queue = Number(find("queue").value);
  pair = find("pair").value;
  status = find("status").value;
  fillPairs();
  refresh();
  if (byPointer) focusView();
}

function buildControls() {
  find("queue").append(...queues.map((one, i) => new Option(one.name + " (" + one.places.length + ")", i)));
  find("queue").value = queue;
  find("status").value = status;
  find("class").append(...classes.map((name) => new Option(name, name)));
  find("help-classes").append(element("kbd", "", digits[0]), " … ", element("kbd", "", digits[digits.length - 1]));
  digits.forEach((digit, i) => {
    const button = Object.assign(element("button"), { type: "button", title: classes[i] });
    button.append(element("kbd", "", digit), digit === classes[i] ? "" : " " + classes[i]);
    button.addEventListener("click", () => decide(targets(), take(classes[i])));
    find("classes").append(button);
  });
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
}

function start() {
  recall();
  buildControls();
  fillPairs();
  for (const name of ["queue", "pair", "status"]) find(name).addEventListener("change", onFilter);
  document.addEventListener("pointerdown", () => { byPointer = true; });
  document.addEventListener("click", (event) => { // a click leaves the keys with the samples
    if (event.detail && event.target.closest("button, main") && !document.querySelector("dialog[open]")) focusView();
  });
  document.addEventListener("keydown", onKey);
  find("grid").addEventListener("click", clickCard);
  find("grid").addEventListener("dblclick", changeView);
  find("grid").addEventListener("scroll", () => requestAnimationFrame(() => paintGrid(false)), { passive: true });
  addEventListener("resize", paint);
  refresh();
  focusView();
}

start();
