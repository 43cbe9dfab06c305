"use strict";
// Everything from the data reaches the page through textContent, value or an image address: never as markup.
const content = JSON.parse(document.getElementById("content").textContent);
const { queues, classes } = content;
const find = (id) => document.getElementById(id);
const CARD = { width: 136, height: 158 }; // with the gap of 8

// Where samples and decisions are: in this file and in the memory of this browser. A decision is {action, label} or null,
// a change [id, before, after], a step the list of changes that undo takes back at once. A store that `keeps` decisions
// elsewhere needs no export.
const inThisBrowser = {
  memory: "review:" + content.run + ":" + content.key,
  size: content.samples.length,
  item: (place) => content.samples[place],
  example: (number) => content.examples[number], // the address of an image, or nothing
  load() { // { made: Map of id → decision, steps, settings }, or a promise of it; the page reads it once
    const steps = [], made = new Map();
    for (let text; (text = localStorage.getItem(this.memory + ":" + steps.length));) {
      const step = JSON.parse(text).map(([id, after]) => [id, made.get(id) || null, after]);
      for (const [id, , after] of step) made.set(id, after);
      steps.push(step);
    }
    return { made, steps, settings: JSON.parse(localStorage.getItem(this.memory)) };
  },
  connect({ onReload }) { // another tab with this page has decided
    addEventListener("storage", ({ key }) => { if (key?.startsWith(this.memory + ":")) onReload(); });
  },
  save(changes, steps, settings) { // what has just changed, all steps after it, and what the page shows
    localStorage.setItem(this.memory, JSON.stringify(settings));
    if (!changes.length) return;
    const last = steps.length - 1;
    const kept = steps[last]?.map(([id, , after]) => [id, after]);
    if (kept) localStorage.setItem(this.memory + ":" + last, JSON.stringify(kept));
    localStorage.removeItem(this.memory + ":" + (last + 1)); // of a step that was undone
  },
};
const store = globalThis.reviewStore ?? inThisBrowser; // a server puts its own there, before this script
const item = (place) => store.item(place);

const BULK = 10; // more suggestions at once are accepted after a question

let made = new Map(); // id → decision
let steps = [];
let exported = 0; // steps that the last export had
let placeOf; // id → place
let at = queues[0].places[0], anchor = at; // places of the current sample and of the one where a range begins
let view = "single", queue = 0, pair = "", policy = "", status = "all", order = "run", query = "";
let zoomed = false;
let ordered = []; // places of the queue, in order
let shown = []; // those that pass the filters
let selected = new Set(); // places selected in the grid
let cards = new Map(); // place → card, of what the grid can show right now
let byPointer = false; // whether the last input came from a pointer
let matches = [], active = 0; // classes that fit what is typed, and the one that Enter takes

/** changes: what has just been decided or undone; none where only the view has changed. */
function remember(changes = []) {
  const settings = { at, view, queue, pair, policy, status, order, query, exported };
  try { store.save(changes, steps, settings); } catch { find("forgets").hidden = false; }
}

async function recall() {
  try {
    const kept = await store.load();
    ({ made, steps } = kept);
    if (kept.settings) ({ at, view, queue, pair, policy = "", status, order = "run", query = "", exported = 0 } = kept.settings);
    if (at >= store.size || !queues[queue]) at = queue = 0;
  } catch { /* a sandboxed frame or a private window: begin anew */ }
  placeOf = new Map(Array.from({ length: store.size }, (_, place) => [item(place).id, place]));
}

/** The store calls it when there are other steps than those of this page. */
async function onReload() {
  ({ made, steps } = await store.load());
  refresh();
}

/** The store calls it with [id, decision] that others made. No step: undo takes back one's own. */
function onOthers(decisions) {
  for (const one of decisions) put(...one);
  refresh();
}

/** The store calls it with [id, mine, theirs], where others decided otherwise in the meantime. */
async function onConflict(conflicts) {
  onOthers(conflicts.map(([id, , theirs]) => [id, theirs]));
  const theirs = await askConflicts("Decided otherwise elsewhere", [], conflicts);
  refresh(commit(conflicts.filter(([id, mine]) => mine && theirs && !theirs.has(id))));
}

function put(id, decision) { if (decision) made.set(id, decision); else made.delete(id); }

function element(tag, className, text) {
  const built = document.createElement(tag);
  if (className) built.className = className;
  if (text !== undefined) built.textContent = text;
  return built;
}

function say(text) { find("message").textContent = text; }
function percent(value) { return value > 0.9999 ? "≈ 100 %" : (100 * value).toFixed(2) + " %"; }
function describe(decision) {
  return decision ? decision.action + (decision.action === "relabel" ? " → " + decision.label : "") : "–";
}
function blind() { return ["audit", "to label"].includes(queues[queue].name); }
function pairOf(sample) { return JSON.stringify([sample.given_label, sample.predicted]); }
function policyOf(sample) { return sample.decision || "none"; }
function isSure(sample) { // the run itself does what it suggests
  return (sample.predicted === sample.given_label ? ["keep"] : ["relabel", "accept"]).includes(sample.decision);
}
function suggests(sample) { return sample.predicted !== "" && !blind(); }

function change(sample) {
  const given = sample.given_label || (suggests(sample) ? "" : "no label given");
  return suggests(sample) ? [given, "→ " + sample.predicted] : [given];
}

function picture(address, alt = "") {
  if (!address) return element("span", "picture gone", "not readable");
  return Object.assign(element("img", "picture"), { src: address, alt });
}

function passes(place) {
  const sample = item(place), decision = made.get(sample.id);
  return (blind() || ((!pair || pairOf(sample) === pair) && (!policy || policyOf(sample) === policy)))
    && (status === "all" || status === (decision ? "done" : "open") || status === decision?.action)
    && sample.id.toLowerCase().includes(query.toLowerCase());
}

function applyFilters() {
  shown = ordered.filter(passes);
  const passed = new Set(shown);
  if (shown.length && !passed.has(at)) { // go on where the current one would stand
    at = ordered.slice(Math.max(0, ordered.indexOf(at))).find((place) => passed.has(place)) ?? shown[shown.length - 1];
  }
  selected = new Set([...selected].filter((place) => passed.has(place)));
}

/** Fill a select with the groups of the queue, largest first; returns the group that is chosen. */
function fillGroups(name, all, keyOf, textOf, chosen) {
  const { places } = queues[queue];
  const groups = Map.groupBy(places, (place) => keyOf(item(place)));
  const sorted = [...groups].sort((one, other) => other[1].length - one[1].length);
  const option = (text, places, key) => new Option(text + " (" + places.length + ")", key);
  const options = sorted.map(([key, some]) => option(textOf(item(some[0])), some, key));
  find(name).replaceChildren(option(all, places, ""), ...options);
  find(name).value = groups.has(chosen) ? chosen : "";
  find(name).hidden = blind();
  return find(name).value;
}

function fillFilters() {
  const confidence = (place) => item(place).confidence * (order === "high" ? -1 : 1);
  ordered = queues[queue].places;
  if (order !== "run" && !blind()) ordered = ordered.toSorted((one, other) => confidence(one) - confidence(other));
  pair = fillGroups("pair", "all pairs", pairOf, (sample) => change(sample).join(" "), pair);
  policy = fillGroups("policy", "run: any", policyOf, (sample) => "run: " + policyOf(sample), policy);
  find("order").hidden = blind();
}

function refresh(changes) {
  applyFilters();
  paint();
  remember(changes);
}

function paint() {
  document.body.className = view + (zoomed ? " zoomed" : "");
  find("single").hidden = view !== "single";
  find("grid").hidden = view !== "grid";
  find("view").replaceChildren(view === "grid" ? "one by one " : "grid ", element("kbd", "", "v"));
  if (view === "grid") paintGrid(true);
  else find("single").replaceChildren(shown.length ? single(item(at)) : "Nothing passes the filters.");
  const { places } = queues[queue];
  const done = places.filter((place) => made.has(item(place).id)).length;
  find("count").textContent = done + " of " + places.length + " reviewed";
  Object.assign(find("progress"), { max: places.length, value: done });
  const where = shown.length ? shown.indexOf(at) + 1 + " of " + shown.length : "none";
  find("shown").textContent = where + " shown" + (selected.size ? ", " + selected.size + " selected" : "");
  const rows = targets().map((place) => item(place));
  const disable = (name, off) => { document.querySelector("[data-do=" + name + "]").disabled = off; };
  disable("keep", !rows.some((sample) => sample.given_label !== ""));
  disable("accept", !rows.some(suggests));
  disable("acceptAll", blind());
  disable("undo", !steps.length);
  find("class").value = suggests(item(at)) ? item(at).predicted : item(at).given_label || classes[0];
  showOptions([]);
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
    ["your decision", describe(decided), decided && "human"],
  ]));
  if (sample.original) {
    side.append(Object.assign(element("a", "", "original image"), { href: sample.original, target: "_blank" }));
  }
  if (sample.cluster && !blind()) side.append(copies(sample));
  if (open) side.append(compared(sample));
  box.append(mainPicture(sample), side);
  return box;
}

function mainPicture(sample) {
  const image = picture((zoomed && sample.original) || sample.image, "sample " + sample.id);
  image.addEventListener("click", zoom);
  image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth <= 64));
  image.addEventListener("error", () => {
    image.src = sample.image;
    say("the original cannot be shown from here; this is the small image in the page");
  }, { once: true });
  return image;
}

/** All copies side by side, with their labels. */
function copies(sample) {
  const box = element("div", "examples copies");
  for (const copy of content.copies?.[sample.cluster] ?? []) {
    const figure = element("figure", copy.id === sample.id ? "current" : ""), text = element("figcaption");
    text.append(element("b", "", copy.given_label), " " + copy.split);
    if (made.has(copy.id)) text.append(element("span", "human", describe(made.get(copy.id))));
    figure.append(picture(copy.image, copy.id), text);
    box.append(figure);
  }
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
    const near = sample.near[side].map((place) => store.example(place)).filter(Boolean);
    if (!near.length || (side === 1 && name === sample.given_label)) return;
    const group = element("div");
    group.append(element("h2", "", "nearest examples of " + name), ...near.map((address) => picture(address)));
    box.append(group);
  });
  return box;
}

// the grid makes only the cards that can be seen

function columns() { return Math.max(1, Math.floor((find("grid").clientWidth - 12) / CARD.width)); }

function buildCard(place, number) {
  const sample = item(place), decision = made.get(sample.id);
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
  return selected.size ? shown.filter((place) => selected.has(place)) : [at];
}

/** Decide [id, decision] of each pair: one step of undo. */
function commit(pairs) {
  const step = pairs.map(([id, after]) => [id, made.get(id) || null, after]);
  for (const one of pairs) put(...one);
  if (step.length) steps.push(step);
  return step;
}

/** decision: sample → {action, label}, or null where the action has no meaning. */
function decide(places, decision) {
  const step = commit(places.map((place) => [item(place).id, decision(item(place))]).filter(([, decided]) => decided));
  if (!step.length) { say("nothing here that this could decide"); return; }
  const [[id, , decided]] = step;
  say(step.length === 1 ? id + ": " + describe(decided) : step.length + " decided; u takes them back");
  selected.clear();
  const index = shown.indexOf(places[places.length - 1]);
  const open = shown.findIndex((place, i) => i > index && !made.has(item(place).id));
  at = shown[open < 0 ? Math.min(index + 1, shown.length - 1) : open];
  refresh(step);
}

function undo() {
  const step = steps.pop();
  if (!step) { say("nothing to undo"); return; }
  if (steps.length < exported) exported = -1;
  for (const one of step) put(...one);
  at = placeOf.get(step[0][0]) ?? at;
  say(step.length === 1 ? step[0][0] + ": undone" : step.length + " undone");
  refresh(step.map(([id, before, after]) => [id, after, before]));
}

async function acceptAsking(places) {
  const offered = places.filter((place) => suggests(item(place))), sure = offered.filter((place) => isSure(item(place)));
  const doubtful = offered.length - sure.length;
  if (!offered.length) { decide(offered, accept); return; } // says so
  const text = doubtful ? doubtful + " of them are doubtful: the run itself did not change these labels, because it is not "
    + "certain enough. Look at them one by one." : "The run itself decided so for all of them.";
  const choices = [["all", "accept all " + offered.length], ["", "cancel"]];
  if (doubtful) choices.reverse();
  if (doubtful && sure.length) choices.unshift(["sure", "accept the " + sure.length + " sure ones"]);
  const answer = await ask("Accept the suggestion for " + offered.length + " samples?", [element("p", "", text)], choices);
  if (answer) decide(answer === "all" ? offered : sure, accept);
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

function goToOpen() {
  const next = shown.indexOf(at) + 1;
  const open = [...shown.slice(next), ...shown.slice(0, next)].find((place) => !made.has(item(place).id));
  if (open === undefined) say("all that is shown is reviewed"); else go(shown.indexOf(open));
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

function changeView(to, isZoomed = false) {
  view = to;
  zoomed = isZoomed;
  selected.clear();
  refresh();
  focusView();
}

function otherView() { changeView(view === "grid" ? "single" : "grid"); }
function zoom() { changeView("single", !zoomed); }

function openFilters(first) { // where the screen is small they are closed else
  find("more").ariaExpanded = true;
  find(first).focus();
}

function focusView() {
  find("more").ariaExpanded = false;
  find(view).focus({ preventScroll: true });
}

// choosing a class by typing

function showOptions(names, current = 0) {
  matches = names;
  const option = (name, i) => Object.assign(element("span", "", name), { id: "option-" + i, role: "option" });
  find("options").replaceChildren(...names.map(option));
  find("options").hidden = !names.length;
  find("class").setAttribute("aria-expanded", names.length > 0);
  moveOption(current);
}

function moveOption(place) {
  active = Math.max(0, Math.min(matches.length - 1, place));
  [...find("options").children].forEach((option, i) => { option.ariaSelected = i === active; });
  find("options").children[active]?.scrollIntoView({ block: "nearest" });
  find("class").setAttribute("aria-activedescendant", matches.length ? "option-" + active : "");
}

function matchClasses() {
  const typed = find("class").value.trim().toLowerCase();
  const where = (name) => name.toLowerCase().indexOf(typed); // earlier is better, and so is shorter
  const found = classes.filter((name) => where(name) >= 0);
  showOptions(found.sort((one, other) => where(one) - where(other) || one.length - other.length));
}

function choose() {
  const { value } = find("class"), name = matches[active] ?? (classes.includes(value) ? value : undefined);
  if (name === undefined) { say("no class has this in its name"); return; }
  decide(targets(), take(name));
  focusView();
}

const actions = {
  accept: () => (targets().length > BULK ? acceptAsking(targets()) : decide(targets(), accept)),
  acceptAll: () => { if (view === "grid") acceptAsking(shown.filter((place) => !made.has(item(place).id))); },
  keep: () => decide(targets(), keep),
  choose,
  ambiguous: () => decide(targets(), without("ambiguous")),
  drop: () => decide(targets(), without("drop")),
  undo,
  next: () => move("j"),
  previous: () => move("k"),
  view: otherView,
  toggle: () => { toggle(); refresh(); },
  selectAll: () => { if (view === "grid") { selected = new Set(shown); refresh(); } },
  back: () => { if (zoomed) zoom(); else { selected.clear(); refresh(); } },
  pick: () => find("class").focus(),
  filter: () => (find("more").ariaExpanded === "true" ? focusView() : openFilters("queue")),
  search: () => openFilters("query"),
  open: goToOpen,
  zoom,
  load: () => find("file").click(),
  help: () => showFromTop(find("help")),
  save,
};
const keys = {
  a: "accept", g: "keep", c: "pick", x: "ambiguous", d: "drop", u: "undo", v: "view", s: "selectAll", f: "filter",
  e: "save", i: "load", n: "open", z: "zoom", "/": "search", "?": "help", " ": "toggle", Enter: "view", Escape: "back",
};
const digits = classes.slice(0, 10).every((name) => /^\d$/.test(name)) // classes that are digits have their own key
  ? classes.slice(0, 10) : [..."1234567890"].slice(0, classes.length);

function onKey(event) {
  byPointer = false;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) { if (event.key === "?") find("help").close(); return; }
  const tag = event.target.tagName, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (tag === "SELECT" || tag === "INPUT") { // its own keys choose; a letter there is a class or filter, not an action
    const isClass = event.target === find("class");
    const steps = isClass ? { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 } : {};
    if (key in steps) moveOption(active + steps[key]);
    else if (key !== "Escape" && key !== "Enter") return;
    else if (isClass && key === "Enter") choose();
    else {
      if (key === "Escape" && event.target === find("query")) { find("query").value = ""; onFilter(); }
      paint();
      focusView();
    }
    event.preventDefault();
    return;
  }
  if (["BUTTON", "A"].includes(tag) && (key === " " || key === "Enter")) return;
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
  [pair, policy, status, order, query] = ["pair", "policy", "status", "order", "query"].map((name) => find(name).value);
  fillFilters();
  refresh();
}

function buildControls() {
  find("queue").append(...queues.map((one, i) => new Option(one.name + " (" + one.places.length + ")", i)));
  find("queue").value = queue;
  Object.entries({ status, order, query }).forEach(([name, value]) => { find(name).value = value; });
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

async function start() {
  await recall();
  buildControls();
  fillFilters();
  for (const select of document.querySelectorAll("#filters select")) {
    select.addEventListener("change", () => { onFilter(); if (byPointer) focusView(); });
  }
  find("query").addEventListener("input", onFilter);
  find("class").addEventListener("focus", () => {
    find("class").select();
    showOptions(classes, classes.indexOf(find("class").value));
  });
  find("class").addEventListener("input", matchClasses);
  find("class").addEventListener("blur", () => { find("options").hidden = true; });
  find("options").addEventListener("pointerdown", (event) => {
    event.preventDefault(); // the focus stays
    const option = [...find("options").children].indexOf(event.target);
    if (option < 0) return; // the scroll bar
    moveOption(option);
    choose();
  });
  find("file").addEventListener("change", async () => {
    const [file] = find("file").files;
    if (file) await load(file);
    find("file").value = "";
  });
  addEventListener("beforeunload", (event) => {
    if (made.size && steps.length !== exported && !store.keeps) event.preventDefault();
  });
  document.addEventListener("pointerdown", () => { byPointer = true; });
  document.addEventListener("click", (event) => { // a click leaves the keys with the samples
    if (!event.detail || document.querySelector("dialog[open]")) return;
    if (event.target.closest("button:not(#more), main")) focusView();
  });
  document.addEventListener("keydown", onKey);
  find("grid").addEventListener("click", clickCard);
  find("grid").addEventListener("dblclick", otherView);
  find("grid").addEventListener("scroll", () => requestAnimationFrame(() => paintGrid(false)), { passive: true });
  addEventListener("resize", paint);
  refresh();
  focusView();
}

store.connect?.({ onReload, onOthers, onConflict });
start();
