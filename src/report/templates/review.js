"use strict";
// Everything from the data reaches the page through textContent, value or an image address: never as markup.
const content = JSON.parse(document.getElementById("content").textContent);
const samples = content.samples;
const memory = "review:" + content.run + ":" + content.key;
const find = (id) => document.getElementById(id);
const cards = [];
let state = { made: {}, history: [], at: 0 }; // made: place → {action, label}; history: [place, what was made before]

function remember() {
  try { localStorage.setItem(memory, JSON.stringify(state)); } catch { /* a private window or a sandboxed frame */ }
}

function recall() {
  try { state = Object.assign(state, JSON.parse(localStorage.getItem(memory))); } catch { /* begin anew */ }
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function fact(list, name, text, className) {
  list.append(element("dt", "", name), element("dd", className, text));
}

function buildCard(sample, place) {
  const card = element("li", "card");
  card.tabIndex = -1;
  const picture = element(sample.image ? "img" : "span", "picture", sample.image ? undefined : "not readable");
  if (sample.image) { picture.src = sample.image; picture.alt = ""; }
  const facts = element("dl");
  fact(facts, "id", sample.id);
  if (sample.given !== "") fact(facts, "given", sample.given);
  fact(facts, "predicted", sample.predicted);
  if (sample.confidence !== null) fact(facts, "confidence", sample.confidence.toFixed(4));
  if (sample.p_wrong !== null) fact(facts, "p_wrong", sample.p_wrong.toFixed(4));
  fact(facts, "decision", sample.decision);
  fact(facts, "you", said(), "human");
  card.append(picture, facts);
  card.addEventListener("click", () => go(place));
  return card;
}

function said(made) {
  return made ? made.action + (made.action === "relabel" ? " → " + made.label : "") : "–";
}

function paint(place) {
  const made = state.made[place];
  cards[place].classList.toggle("reviewed", Boolean(made));
  cards[place].querySelector("dd.human").textContent = said(made);
}

function paintProgress() {
  const done = Object.keys(state.made).length;
  find("count").textContent = done + " of " + samples.length + " reviewed";
  find("progress").max = samples.length;
  find("progress").value = done;
}

function go(place) {
  cards[state.at].removeAttribute("aria-current");
  cards[state.at].tabIndex = -1;
  state.at = Math.max(0, Math.min(samples.length - 1, place));
  const card = cards[state.at], sample = samples[state.at];
  card.setAttribute("aria-current", "true");
  card.tabIndex = 0;
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "nearest" });
  find("class").value = (state.made[state.at] || {}).label || sample.predicted;
  document.querySelector("[data-do=keep]").disabled = sample.given === "";
  remember();
}

function decide(action, label) {
  const place = state.at;
  state.history.push([place, state.made[place] || null]);
  state.made[place] = { action, label };
  paint(place);
  paintProgress();
  find("message").textContent = samples[place].id + ": " + said(state.made[place]);
  const open = samples.findIndex((_, i) => i > place && !state.made[i]);
  go(open < 0 ? place + 1 : open);
}

function undo() {
  const last = state.history.pop();
  if (!last) { find("message").textContent = "nothing to undo"; return; }
  if (last[1]) state.made[last[0]] = last[1]; else delete state.made[last[0]];
  paint(last[0]);
  paintProgress();
  find("message").textContent = samples[last[0]].id + ": undone";
  go(last[0]);
}

function relabel(label) {
  if (label === samples[state.at].given) decide("keep", label); else decide("relabel", label);
}

const actions = {
  accept: () => relabel(samples[state.at].predicted),
  keep: () => { if (samples[state.at].given !== "") decide("keep", samples[state.at].given); },
  choose: () => relabel(find("class").value),
  focus: () => { find("message").textContent = "choose a class, then Enter; Esc goes back"; find("class").focus(); },
  ambiguous: () => decide("ambiguous", ""),
  drop: () => decide("drop", ""),
  undo,
  next: () => go(state.at + 1),
  previous: () => go(state.at - 1),
};
const keys = {
  a: "accept", g: "keep", c: "focus", x: "ambiguous", d: "drop", u: "undo",
  j: "next", k: "previous", ArrowRight: "next", ArrowDown: "next", ArrowLeft: "previous", ArrowUp: "previous",
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === find("class")) { // its own keys choose; a letter there is a class, not an action
    if (event.key === "Escape") go(state.at);
    else if (event.key === "Enter") { event.preventDefault(); actions.choose(); }
    return;
  }
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  actions[action]();
}

function corrections() {
  const quote = (text) => /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  const line = (cells) => cells.map(quote).join(",") + "\n";
  const rows = samples.flatMap((s, i) => {
    const made = state.made[i];
    return made ? [line([s.id, s.given, made.action, made.label, s.sha256])] : [];
  });
  return line(["id", "given", "action", "label", "image_sha256"]) + rows.join("");
}

function save() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([corrections()], { type: "text/csv" }));
  link.download = "corrections.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  find("message").textContent = Object.keys(state.made).length + " corrections exported";
}

function start() {
  recall();
  const pool = samples.every((s) => s.given === "");
  find("intro").textContent = pool
    ? "The pseudo-labels nearest to the cutoff. What you decide outranks the automatic decision."
    : "The most suspicious given labels first. What you decide outranks the automatic decision.";
  for (const name of content.classes) find("class").append(element("option", "", name));
  samples.forEach((sample, place) => cards.push(buildCard(sample, place)));
  find("cards").append(...cards);
  Object.keys(state.made).forEach(paint);
  paintProgress();
  for (const button of document.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
  find("export").addEventListener("click", save);
  document.addEventListener("keydown", onKey);
  go(state.at);
}

start();
