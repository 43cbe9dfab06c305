"use strict";
// A server (run_folder/serve.py) has the samples, the images and the decisions; its addresses are below that of this page.
class ServedSample {
  sha256 = "";
  #near; // images that the server is asked for where they are shown

  constructor(facts, place) { Object.assign(this, facts, { place, image: "image/" + place + "/256", original: "image/" + place + "/100000" }); }

  get near() {
    if (!this.#near) this.#fetch();
    return this.#near;
  }

  async #fetch() {
    this.#near = [[], []];
    this.#near = await store.ask("near/" + this.place);
    refresh();
  }
}

const BATCH = 20000; // decisions in one request
globalThis.reviewStore = {
  keeps: true,
  size: 0,
  samples: [],
  version: 0, // how many decisions of all pages this one has seen
  waiting: new Map(), // id → decision that is not saved yet
  own: new Map(), // id → decision of this page that is saved
  busy: false,
  item(place) { return this.samples[place]; },
  example: (address) => address,

  async ask(address, body) {
    const options = body && { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
    const answer = await fetch(address, options);
    if (!answer.ok) throw new Error(address + ": " + answer.status);
    return answer.json();
  },

  async load() {
    try {
      while (this.samples.length < content.server) await this.loadChunk();
      const { version, others } = await this.ask("decisions", { since: 0, decisions: [] });
      Object.assign(this, { version, size: this.samples.length });
      say("Every decision is saved at once, in review.csv of the run folder.");
      const made = new Map(this.decisions(others).filter(([, decision]) => decision));
      try { return { ...inThisBrowser.load(), made }; } catch { return { made, steps: [] }; } // without memory, undo begins anew
    } catch {
      this.complain("Start it again, and open the address that it prints.");
      return new Promise(() => {}); // there is nothing to begin with
    }
  },

  async loadChunk() {
    const chunk = await this.ask("samples/" + this.samples.length);
    for (const facts of chunk) this.samples.push(new ServedSample(facts, this.samples.length));
    say(this.samples.length.toLocaleString() + " of " + content.server.toLocaleString() + " samples read");
  },

  complain(text) {
    find("forgets").textContent = "The server does not answer. " + text;
    find("forgets").hidden = false;
  },

  decisions: (lines) => Object.entries(lines).map(([id, line]) => [id, line ? { action: line[2], label: line[3] } : null]),

  save(changes, steps, settings) {
    for (const [id, , after] of changes) this.waiting.set(id, after);
    if (changes.length) this.send();
    try { inThisBrowser.save(changes, steps, settings); } catch { /* no memory, or no room in it: the server has all */ }
  },

  connect(page) {
    this.page = page;
    setInterval(() => this.send(), 5000);
    addEventListener("beforeunload", (event) => { if (this.waiting.size) event.preventDefault(); });
  },

  async send() { // one batch after the other, so that none overtakes another
    if (this.busy || !this.size) return;
    this.busy = true;
    const all = [...this.waiting], sent = all.slice(0, BATCH);
    this.waiting = new Map(all.slice(BATCH));
    const decisions = sent.map(([id, decision]) => [id, decision?.action ?? "", decision?.label ?? ""]);
    const answer = await this.ask("decisions", { since: this.version, decisions }).catch(() => null);
    this.busy = false;
    if (!answer) { // tried again in a moment
      this.waiting = new Map([...sent, ...this.waiting]);
      this.complain(this.waiting.size + " decisions are not saved. Keep this page open, or export them.");
      return;
    }
    find("forgets").hidden = true;
    this.version = answer.version;
    for (const [id, decision] of sent) this.own.set(id, decision);
    if (this.waiting.size) this.send();
    this.tell(this.decisions(answer.others).filter(([id]) => !this.waiting.has(id)));
  },

  tell(others) {
    const differs = ([id, theirs]) => this.own.has(id) && describe(this.own.get(id)) !== describe(theirs);
    const conflicts = others.filter(differs);
    const news = others.filter((one) => !differs(one));
    if (news.length) this.page.onOthers(news);
    if (conflicts.length) this.page.onConflict(conflicts.map(([id, theirs]) => [id, this.own.get(id), theirs]));
    for (const [id] of others) this.own.delete(id);
  },
};

