"use strict";
// Draws the page from the JSON in it. Every text goes through textContent: names and messages come from hosts.

const data = JSON.parse(document.getElementById("data").textContent);

// What a verdict looks like, the one that needs a person first: [sign, word, kind].
const VERDICTS = {
  fail: ["✕", "fail", "bad"],
  rolled_back: ["↩", "rolled back", "bad"],
  refused: ["⊘", "refused", "bad"],
  inconclusive: ["?", "inconclusive", "doubt"],
  fell_back: ["↓", "fell back", "doubt"],
  untouched: ["–", "untouched", "idle"],
  pass: ["✓", "pass", "good"],
};
const RANK = Object.keys(VERDICTS);
const STATES = { "in force": "good", partial: "doubt", "not read back": "doubt", instead: "bad", "no effect": "idle", void: "doubt" };
const natural = new Intl.Collator("en", { numeric: true }).compare;

// An element with its attributes and children; strings become text.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const text = (value) => (value === null || value === undefined ? "" : String(value));
const look = (verdict) => VERDICTS[verdict] || ["?", text(verdict), "doubt"];
const moment = (unix) => (unix ? new Date(unix * 1000).toISOString().replace("T", " ").slice(0, 16) + " UTC" : "");
const sign = (verdict) => element("span", { class: `sign ${look(verdict)[2]}`, "aria-hidden": "true" }, look(verdict)[0]);

function placed(made, left, width) {
  made.style.left = left === null ? "" : `${left}%`;
  if (width !== null) made.style.width = `${width}%`;
  return made;
}

// The table -----------------------------------------------------------------------------------------------------------

const COLUMNS = [
  { name: "Host", kind: "name", value: (host) => host.host, cell: () => [] },
  { name: "Verdict", kind: "", value: (host) => (RANK.indexOf(host.verdict) + 1 || 99) * 1e6 + (host.headroom ?? 0), cell: verdictBadge },
  { name: "Peak", kind: "peak", value: (host) => host.peak, cell: peakCell },
  { name: "Headroom", kind: "number wide", value: (host) => host.headroom, cell: (host) => [text(host.headroom)] },
  { name: "tok/s", kind: "number wide", value: (host) => host.speed, cell: (host) => [text(host.speed)] },
  { name: "Profile", kind: "wide", value: (host) => host.profile, cell: (host) => [text(host.profile)] },
  { name: "Changed", kind: "number wide", value: (host) => host.changes.length, cell: (host) => [text(host.changes.length || "")] },
  { name: "Reason", kind: "reason", value: (host) => host.reasons[0], cell: (host) => (host.reasons[0] ? [element("span", {}, host.reasons[0])] : []) },
];
const FIRST_DESCENDING = new Set(["Peak", "tok/s", "Changed"]);
const state = { verdict: null, words: "", column: COLUMNS[1], descending: false };

function verdictBadge(host) {
  const [, word, kind] = look(host.verdict);
  return [element("span", { class: `verdict ${kind}` }, sign(host.verdict), word)];
}

function peakCell(host) {
  if (host.peak === null) return [];
  const whole = Math.max(host.card || 0, host.threshold || 0, host.peak, 1);
  const over = host.threshold !== null && host.peak > host.threshold;
  const meter = element("div", { class: over ? "meter over" : "meter", "aria-hidden": "true" }, placed(element("i"), null, (100 * host.peak) / whole));
  if (host.threshold !== null) meter.append(placed(element("s"), (100 * host.threshold) / whole, null));
  return [host.threshold === null ? `${host.peak}` : `${host.peak} of ${host.threshold}`, meter];
}

// A host has a tbody of its own, so that sorting and filtering move what is open along with it.
const bodies = data.hosts.map((host, index) => {
  const opener = element("button", { type: "button", "aria-expanded": "false", "aria-controls": `detail-${index}` }, host.host);
  const cells = COLUMNS.map((column) => element("td", { class: column.kind || null }, ...column.cell(host)));
  cells[0] = element("th", { class: "name", scope: "row" }, opener);
  const row = element("tr", {}, ...cells);
  const detail = element("tr", { class: "detail", id: `detail-${index}`, hidden: "" });
  const body = element("tbody", {}, row, detail);
  row.addEventListener("click", () => {
    if (String(getSelection()) === "") toggle(entry);
  });
  const haystack = [host.host, host.profile, look(host.verdict)[1], ...host.reasons].join(" ").toLowerCase();
  const entry = { host, body, detail, opener, haystack };
  return entry;
});

function toggle(entry, open = entry.detail.hidden) {
  if (open && !entry.detail.firstChild) entry.detail.append(element("td", { colspan: COLUMNS.length }, article(entry.host)));
  entry.detail.hidden = !open;
  entry.opener.setAttribute("aria-expanded", String(open));
}

function compare(one, other) {
  const [a, b] = [state.column.value(one.host), state.column.value(other.host)];
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b) || natural(one.host.host, other.host.host);
  const order = typeof a === "number" ? a - b : natural(String(a), String(b));
  return (state.descending ? -order : order) || natural(one.host.host, other.host.host);
}

function show() {
  let shown = 0;
  for (const { host, body, haystack } of bodies) {
    body.hidden = (state.verdict !== null && host.verdict !== state.verdict) || !state.words.split(/\s+/).every((word) => haystack.includes(word));
    shown += !body.hidden;
  }
  document.getElementById("shown").textContent = shown === bodies.length ? "" : `${shown} of ${bodies.length} hosts shown`;
  for (const button of document.querySelectorAll("#verdicts button")) {
    button.setAttribute("aria-pressed", String((button.value || null) === state.verdict));
  }
}

function sort() {
  document.getElementById("fleet").append(...[...bodies].sort(compare).map((entry) => entry.body));
  COLUMNS.forEach((column, index) => {
    const heading = document.getElementById("columns").children[index];
    if (column === state.column) heading.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
  });
}

// What is known about a host, made when it is first opened --------------------------------------------------------------

function article(host) {
  const made = element("article", { class: look(host.verdict)[2], "aria-label": host.host });
  const cause = host.reasons.length ? host.reasons : [host.peak_text || "nothing was measured"];
  made.append(element("ul", { class: "cause" }, ...cause.map((reason) => element("li", {}, reason))));
  made.append(element("div", { class: "pictures" }, timeline(host), budget(host)));
  const facts = [...(host.reasons.length && host.peak_text ? [["peak", host.peak_text]] : []), ...host.facts];
  if (host.wave) facts.push(["wave", text(host.wave)]);
  if (host.at) facts.push(["recorded", moment(host.at)]);
  if (host.undo) facts.push(["undo", element("code", {}, host.undo)]);
  const list = element("dl", {}, ...facts.flatMap(([label, words]) => [element("dt", {}, label), element("dd", {}, words)]));
  made.append(
    ...[
      section("Faults", host.faults.length && table(["Severity", "From", "", "Message"], host.faults.map(faultRow))),
      section(`Changed since ${moment(host.since) || "the last run"}`, host.changes.length && table(["What", "Before", "Now"], host.changes.map(changeRow))),
      section(
        ["Settings", ...(host.settings_when ? [host.settings_when] : [])].join(" "),
        host.settings.length && table(["State", "Setting", "Effect", "Read by"], host.settings.map((setting) => settingRow(setting, host.settings_when))),
      ),
      section("Notes", host.notes.length && element("ul", { class: "notes" }, ...host.notes.map((note) => element("li", {}, note)))),
      section("What was measured", list),
    ].filter(Boolean),
  );
  return made;
}

function section(title, content) {
  return content ? element("section", {}, element("h2", {}, title), content) : null;
}

function table(titles, rows) {
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
}

const cells = (...contents) => element("tr", {}, ...contents.map((content) => element("td", {}, content)));
const short = (content) => element("span", { class: "short" }, content);

function faultRow(fault) {
  const kind = fault.severity === "fatal" ? "bad" : "doubt";
  const often = fault.count > 1 ? `${fault.count} times` : "";
  return cells(element("span", { class: `state ${kind}` }, text(fault.severity)), short(fault.source), short(often), element("code", {}, fault.text));
}

function changeRow(change) {
  return cells(change.what, change.before ?? element("span", { class: "quiet" }, "not set"), change.now ?? element("span", { class: "quiet" }, "not set any more"));
}

function settingRow(setting, past) {
  const kind = past ? "idle" : STATES[setting.state] || "doubt";
  const readBy = setting.set_by === "collection" ? `${setting.read_by}; set by this collection, not by the profile` : setting.read_by;
  return cells(
    element("span", { class: `state ${kind}` }, setting.state),
    element("code", {}, `${setting.name}=${setting.wanted}`),
    setting.source ? `${setting.effect}; ${setting.source}` : setting.effect,
    element("span", { class: "quiet" }, readBy),
  );
}

function timeline(host) {
  if (!host.moments.length) return "";
  const made = element("section", {}, element("h2", {}, "Memory under load, MiB over seconds"));
  let gpus = 0;
  const kinds = host.series.map(({ kind }) => (kind === "gpu" ? `gpu gpu-${gpus++ % 4}` : kind));
  if (host.chart) {
    const svg = document.importNode(new DOMParser().parseFromString(host.chart, "image/svg+xml").documentElement, true);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", host.series.map(({ name, mib }) => `${name} ${mib} MiB`).join(", "));
    kinds.forEach((kind, index) => svg.querySelector(`.serie-${index}`)?.classList.add(...kind.split(" ")));
    const key = host.series.map(({ name, mib }, index) => element("li", {}, element("i", { class: `stroke ${kinds[index]}` }), `${name} ${mib}`));
    made.append(svg, element("ul", { class: "key" }, ...key));
  } else if (!data.charts) {
    made.append(element("p", { class: "quiet" }, "The curve is drawn where pygal is installed beside ansible-core."));
  }
  const most = Math.max(host.card || 0, ...host.moments.map(([, used]) => used), 1);
  const rows = host.moments.map(([at, used]) => {
    const meter = element("div", { class: "meter", "aria-hidden": "true" }, placed(element("i"), null, (100 * used) / most));
    return element("tr", {}, element("td", { class: "number" }, at.toFixed(1)), element("td", { class: "number" }, text(used)), element("td", { class: "peak" }, meter));
  });
  made.append(element("details", host.chart ? {} : { open: "" }, element("summary", {}, "In figures"), table(["Second", "MiB", ""], rows)));
  return made;
}

function budget(host) {
  if (!host.bars.length) return "";
  const made = element("section", {}, element("h2", {}, "Budget, MiB"));
  const total = (bar) => bar.parts.reduce((sum, part) => sum + part.mib, 0);
  const whole = Math.max(host.card || 0, host.threshold || 0, ...host.bars.map(total), 1);
  const present = new Map();
  for (const bar of host.bars) {
    const drawn = element("div", { class: "bar", role: "img", "aria-label": `${bar.label}: ${bar.parts.map((part) => `${part.name} ${part.mib}`).join(", ")}` });
    for (const part of bar.parts) {
      const share = (100 * part.mib) / whole;
      const piece = placed(element("i", { title: `${part.name}: ${part.mib} MiB` }, share > 7 ? text(part.mib) : ""), null, share);
      piece.style.background = data.kinds[part.kind].colour;
      drawn.append(piece);
      present.set(part.kind, data.kinds[part.kind]);
    }
    if (host.threshold !== null) drawn.append(placed(element("s", { title: `threshold ${host.threshold} MiB` }), (100 * host.threshold) / whole, null));
    made.append(element("div", { class: "bar-label" }, element("span", {}, bar.label), element("span", { class: "quiet" }, text(total(bar)))), drawn);
  }
  const key = [...present.values()].map(({ name, colour }) => {
    const swatch = element("i");
    swatch.style.background = colour;
    return element("li", {}, swatch, name);
  });
  if (host.threshold !== null) key.push(element("li", {}, element("i", { class: "stroke threshold" }), `threshold ${host.threshold}`));
  made.append(element("ul", { class: "key" }, ...key));
  return made;
}

// Controls ------------------------------------------------------------------------------------------------------------

function choose(verdict) {
  state.verdict = verdict;
  show();
}

const counts = new Map(RANK.map((verdict) => [verdict, 0]));
for (const { verdict } of data.hosts) counts.set(verdict, (counts.get(verdict) || 0) + 1);
const bad = data.hosts.filter((host) => look(host.verdict)[2] === "bad").length;
const doubtful = data.hosts.filter((host) => look(host.verdict)[2] === "doubt").length;

document.getElementById("when").textContent = moment(data.at);
document.getElementById("sum").textContent = [
  `${data.hosts.length} ${data.hosts.length === 1 ? "host" : "hosts"}`,
  `${counts.get("pass")} proven under load`,
  ...(bad ? [`${bad} did not end well`] : []),
  ...(doubtful ? [`${doubtful} without a clear verdict`] : []),
].join(", ") + ".";

const chips = [element("button", { type: "button", value: "" }, "all ", element("b", {}, text(data.hosts.length)))];
for (const [verdict, count] of counts) {
  if (count) chips.push(element("button", { type: "button", value: verdict }, sign(verdict), ` ${look(verdict)[1]} `, element("b", {}, text(count))));
}
document.getElementById("verdicts").append(...chips);
document.getElementById("verdicts").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(button.value === "" || button.value === state.verdict ? null : button.value);
});

const search = document.getElementById("search");
search.addEventListener("input", () => {
  state.words = search.value.trim().toLowerCase();
  show();
});
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== search) {
    event.preventDefault();
    search.focus();
  }
});

document.getElementById("columns").append(
  ...COLUMNS.map((column) => {
    const button = element("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      state.descending = state.column === column ? !state.descending : FIRST_DESCENDING.has(column.name);
      state.column = column;
      sort();
    });
    return element("th", { scope: "col", class: column.kind || null }, button);
  }),
);

sort();
show();
if (bodies.length === 1) toggle(bodies[0], true);
// Sent as a link, `#gpu07` opens that host.
const asked = bodies.find((entry) => `#${encodeURIComponent(entry.host.host)}` === location.hash);
if (asked) {
  toggle(asked, true);
  asked.body.scrollIntoView();
}
