// corrections.csv: written, read, and merged with what is decided here

const FORMULA = /^'*[=+\-@\t\r＝＋－＠]./s; // see data/csv_text.py
const header = ["id", "given_label", "action", "label", "image_sha256"];

function corrections() {
  const isFormula = (text) => FORMULA.test(text) && !/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
  const escapeFormula = (text) => (isFormula(text) ? "'" + text : text);
  const quote = (text) => (/[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text);
  const line = (cells) => cells.map(escapeFormula).map(quote).join(",") + "\n";
  const rows = [...placeOf].filter(([id]) => made.has(id)).map(([id, place]) => {
    const { action, label } = made.get(id);
    return line([id, item(place).given_label, action, label, item(place).sha256]);
  });
  return [line(header), ...rows];
}

function save() {
  const lines = corrections(), href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  Object.assign(element("a"), { href, download: "corrections.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60000);
  say(lines.length - 1 + " corrections exported");
  exported = steps.length;
  remember();
  if (find("forgets").hidden) return;
  find("csv").value = lines.join(""); // a frame without memory often allows no download either
  showFromTop(find("text"));
  find("csv").select();
}

function parseCsv(text) {
  const body = text.replace(/^\uFEFF?("?sep=."?\r?\n)?/i, ""), sign = /^[^,\n]*?([;\t|])/.exec(body)?.[1] ?? ",";
  const pattern = new RegExp(`("(?:[^"]|"")*"|[^\\${sign}\r\n]*)(\\${sign}|\r\n?|\n|$)`, "y");
  const rows = [[]];
  for (let match; pattern.lastIndex < body.length && (match = pattern.exec(body));) {
    const [, cell, end] = match;
    rows.at(-1).push(cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell);
    if (end !== sign) rows.push([]);
  }
  return rows.filter((row) => row.some(Boolean));
}

/** [id, decision] of each line that fits this page, and what is wrong with the others. */
function readCorrections(text) {
  const [names = [], ...rows] = parseCsv(text), fitting = new Map(), faults = [];
  const missing = header.slice(0, 4).filter((name) => !names.includes(name));
  if (missing.length) return { fitting, faults: ["it has no column " + missing.join(", ")] };
  rows.forEach((row, i) => {
    const [id, given, action, label, sha256] = header.map((name) => row[names.indexOf(name)] ?? "")
      .map((cell) => (cell.startsWith("'") && FORMULA.test(cell) ? cell.slice(1) : cell));
    const sample = placeOf.has(id) ? item(placeOf.get(id)) : null;
    const isLearned = action === "keep" || action === "relabel", learned = label || (action === "keep" ? given : "");
    const fault = !sample ? "is no sample of this page"
      : given !== sample.given_label ? "has the given label " + (sample.given_label || "–") + " here"
      : sha256 && sample.sha256 && sample.sha256 !== sha256 ? "has another image here"
      : !isLearned && action !== "drop" && action !== "ambiguous" ? "has the action " + action
      : isLearned && !classes.includes(learned) && learned !== given ? "has the label " + learned + ", no class of this run"
      : action === "keep" && given && learned !== given ? "is kept with another label"
      : fitting.has(id) ? "stands above already" : "";
    if (fault) faults.push("line " + (i + 2) + ": " + id + " " + fault);
    else fitting.set(id, (isLearned ? take(learned) : without(action))(sample));
  });
  return { fitting, faults };
}

async function load(file) {
  const { fitting, faults } = readCorrections(await file.text());
  const conflicts = [...fitting].filter(([id, theirs]) => made.has(id) && describe(made.get(id)) !== describe(theirs));
  let theirs = new Set();
  if (conflicts.length || faults.length) {
    const list = element("ul");
    list.append(...faults.slice(0, 20).map((fault) => element("li", "", fault)));
    const about = element("p", "", "Lines left out, also of the next export: " + faults.length);
    const parts = faults.length ? [about, list] : [];
    theirs = await askConflicts("Import " + file.name, parts, conflicts.map(([id, other]) => [id, made.get(id), other]));
    if (!theirs) { say("nothing imported"); return; }
  }
  const step = commit([...fitting].filter(([id]) => !made.has(id) || theirs.has(id)));
  refresh(step);
  say(fitting.size + " decisions in the file: " + step.length + " taken, " + (fitting.size - step.length) + " as they were here");
}

/** Open a dialog that may be higher than a phone: the button that it focuses is at its end. */
function showFromTop(dialog) {
  dialog.showModal();
  dialog.scrollTop = 0;
}

let asking = Promise.resolve(); // one question after the other

/** A question; choices are [answer, text], the first one by Enter. "" for Esc. */
function ask(title, parts, choices) {
  const dialog = find("ask"), form = dialog.firstElementChild;
  const button = ([value, text], i) => Object.assign(element("button", i ? "" : "main", text), { value, autofocus: !i });
  asking = asking.then(() => new Promise((answer) => {
    find("ask-title").textContent = title;
    find("ask-body").replaceChildren(...parts);
    find("ask-choices").replaceChildren(...choices.map(button));
    form.onsubmit = ({ submitter }) => answer(submitter.value);
    dialog.oncancel = () => answer("");
    showFromTop(dialog);
  }));
  return asking;
}

/** Show conflicts [id, mine, theirs] and let a person choose; returns the ids where theirs is taken, null to stop. */
async function askConflicts(title, parts, conflicts) {
  const table = element("table"), form = find("ask").querySelector("form");
  conflicts.forEach(([id, ...decisions], i) => {
    const row = table.insertRow();
    row.insertCell().append(picture(item(placeOf.get(id)).image), " " + id);
    decisions.forEach((decision, theirs) => {
      const label = element("label");
      label.append(Object.assign(element("input"), { type: "radio", name: i, value: theirs, checked: !theirs }));
      label.append((theirs ? "theirs: " : "mine: ") + describe(decision));
      row.insertCell().append(label);
    });
  });
  const about = conflicts.length + " decided in two ways:";
  const all = conflicts.length ? [["mine", "mine for all"], ["theirs", "theirs for all"]] : [];
  const answer = await ask(title, [...parts, ...(conflicts.length ? [element("p", "", about), table] : [])],
    [["chosen", conflicts.length ? "as chosen" : "import the rest"], ...all, ["", "cancel"]]);
  const chosen = new FormData(form);
  const isTheirs = (i) => answer === "theirs" || (answer === "chosen" && chosen.get(String(i)) === "1");
  return answer ? new Set(conflicts.map(([id]) => id).filter((_, i) => isTheirs(i))) : null;
}
