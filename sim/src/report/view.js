// What a reader does: zoom, move, hold the cursor, filter, search; and the list of events at the cursor.

const LIST_BEFORE = 60;
const LIST_AFTER = 90;
const LEAST_SPAN = 20;

let scheduled = false;
repaint = () => {
  readColours();
  refresh();
};

// Paints once a frame at the most.
function refresh() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    paint();
    list();
  });
}

function show(from, to) {
  const width = Math.min(Math.max(to - from, LEAST_SPAN), END * 1.02);
  const middle = (from + to) / 2;
  view.from = Math.max(-END * 0.01, Math.min(middle - width / 2, END * 1.01 - width));
  view.to = view.from + width;
  refresh();
}

function zoom(factor, at) {
  const width = Math.min(Math.max((view.to - view.from) * factor, LEAST_SPAN), END * 1.02);
  const share = (at - view.from) / (view.to - view.from);
  show(at - width * share, at + width * (1 - share));
}

const move = (share) => {
  const by = (view.to - view.from) * share;
  show(view.from + by, view.to + by);
};

function hold(at) {
  view.held = true;
  view.cursor = Math.max(0, Math.min(at, END));
  if (at < view.from || at > view.to) show(at - (view.to - view.from) / 2, at + (view.to - view.from) / 2);
  refresh();
}

function toViolation() {
  if (!data.violation) return;
  const at = data.violation.at;
  const before = Math.min(END, 400_000);
  hold(at);
  show(at - before, at + before * 0.12);
}

// The list.

let listed = "";
function list() {
  const middle = momentAt(view.cursor + 1);
  const key = [middle, view.cursor, JSON.stringify([...filter.nodes, "|", ...filter.kinds, "|", ...filter.classes, "|",
    ...filter.layers, filter.from, filter.to, filter.words])].join();
  if (key === listed) return;
  listed = key;
  const found = [];
  for (let place = middle - 1, left = LIST_BEFORE; place >= 0 && left > 0; place--) {
    const description = isWanted(moments[place]);
    if (description) { found.unshift([place, description]); left--; }
  }
  const before = found.length;
  for (let place = middle, left = LIST_AFTER; place < moments.length && left > 0; place++) {
    const description = isWanted(moments[place]);
    if (description) { found.push([place, description]); left--; }
  }
  const items = found.map(([place, { who, what, about, mark }], row) => {
    const item = element("li", { className: row === before - 1 ? "at" : "" },
      element("time", { textContent: seconds(moments[place].at) }),
      element("b", { textContent: who }),
      what, " ", element("span", { className: "quiet", textContent: about }));
    if (mark === "--bad" && what === "violation") item.className += " violation";
    item.style.setProperty("--mark", `var(${mark})`);
    item.dataset.at = moments[place].at;
    return item;
  });
  const events = byId("events");
  events.replaceChildren(...items);
  const current = events.querySelector(".at");
  if (current) events.scrollTop = current.offsetTop - events.offsetTop - events.clientHeight * 0.6;
  byId("cursor-time").textContent = `${seconds(view.cursor)} s`;
  byId("cursor-state").textContent = view.held ? "held; Esc lets go" : "at the pointer; click to hold";
}

// The next event that the filters let through, or the previous one.
function step(by) {
  let place = by > 0 ? momentAt(view.cursor + 1) : momentAt(view.cursor) - 1;
  while (moments[place] && !isWanted(moments[place])) place += by;
  if (moments[place]) hold(moments[place].at);
}

// What lies under the pointer, in words.

function distance(x, y, [x1, y1, x2, y2]) {
  const [dx, dy] = [x2 - x1, y2 - y1];
  const share = Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - x1 - share * dx, y - y1 - share * dy);
}

function messageUnder(x, y) {
  if (!layout.drawn || layout.drawn.length > LINES_MAX) return null;
  let [best, least] = [null, 5];
  for (const row of layout.drawn) {
    const line = ends(row);
    const far = line ? distance(x, y, line) : least;
    if (far < least) [best, least] = [row, far];
  }
  if (best === null) return null;
  const fate = messages.get(best, 5);
  const took = fate < LOST ? ` (${span(messages.get(best, 1) - messages.get(best, 0))})` : "";
  return `${text(messages.get(best, 4))}, ${messages.get(best, 2)} → ${messages.get(best, 3)}, term ${messages.get(best, 6)}\n`
    + `sent ${seconds(messages.get(best, 0))} s; ${FATES[fate]}${took}\n${text(messages.get(best, 7))}`;
}

function requestUnder(x, y, lane) {
  const at = Math.floor((y - requestsTop(lane)) / 5);
  if (filter.layers.has("requests") || at < 0 || at >= REQUEST_ROWS) return null;
  let best = null;
  requestsIn.each(timeOf(x - 3), timeOf(x + 3), (row) => {
    if (requests.get(row, 0) === lane.node && requestRow[row] === at) best = row;
  });
  if (best === null) return null;
  const answer = text(requests.get(best, 6));
  return `${OPERATIONS[requests.get(best, 3)]} asked of ${nodeName(lane.node)}: ${ANSWERS[requests.get(best, 4)]}\n`
    + `${seconds(requests.get(best, 1))} s, ${span(requests.get(best, 2) - requests.get(best, 1))}\n`
    + `${text(requests.get(best, 5))}${requests.get(best, 4) < 3 && answer ? "\n" + answer : ""}`;
}

function faultUnder(x, y) {
  const row = Math.floor((y - AXIS - 2) / FAULT_ROW);
  const fault = data.faults.findLast((one) => one.row === row && showsFault(one)
    && x >= xOf(one.from) - 2 && x <= Math.max(xOf(one.to), xOf(one.from) + 6));
  if (!fault) return null;
  const links = fault.links.length ? `\nlinks ${fault.links.map((link) => link.join(" → ")).join(", ")}` : "";
  const lasts = fault.to > fault.from ? `, ${span(fault.to - fault.from)}` : "";
  return `${fault.name}${fault.nodes.length ? " of " + fault.nodes.map(nodeName).join(", ") : ""}\n`
    + `${seconds(fault.from)} s${lasts}${links}\n${fault.about}`;
}

function under(x, y) {
  if (x < GUTTER) return null;
  if (y < layout.top) return faultUnder(x, y);
  const lane = layout.lanes.find(({ top, height }) => y >= top && y < top + height);
  if (!lane) return null;
  const inBar = y >= lane.top + 8 && y < lane.top + 8 + BAR;
  const row = spanAt(lane.lane, timeOf(x));
  if (inBar && row >= 0) {
    const leader = spans.get(row, 5);
    return `${nodeName(lane.node)}: ${PARTS[spans.get(row, 3)]}`
      + (spans.get(row, 3) < PAUSED ? `, term ${spans.get(row, 4)}, ${leader ? `leader ${leader}` : "no leader known"}` : "")
      + `\n${seconds(spans.get(row, 1))} to ${seconds(spans.get(row, 2))} s (${span(spans.get(row, 2) - spans.get(row, 1))})`;
  }
  const found = requestUnder(x, y, lane) || messageUnder(x, y);
  if (found || y < positionsTop(lane)) return found;
  const place = positionAfter(lane.lane, timeOf(x)) - 1;
  if (place < 0) return null;
  const [at, commit, applied, durable, last] = positions[lane.lane][place];
  return `${nodeName(lane.node)} since ${seconds(at)} s\ncommit ${commit}, applied ${applied}\ndurable ${durable}, last ${last}`;
}

function tip(event) {
  const words = event && under(event.offsetX, event.offsetY);
  const box = byId("tip");
  box.hidden = !words;
  if (!words) return;
  box.textContent = words.trim();
  const { width, height } = box.getBoundingClientRect();
  box.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 6))}px`;
  box.style.top = `${Math.max(4, event.clientY + 16 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 16)}px`;
}

// Pointers, wheel and keys.

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  drag = { x: event.clientX, from: view.from, to: view.to, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (drag) {
    const by = ((drag.x - event.clientX) / (layout.width - GUTTER)) * (drag.to - drag.from);
    drag.moved ||= Math.abs(drag.x - event.clientX) > 3;
    if (drag.moved) { tip(null); show(drag.from + by, drag.to + by); }
    return;
  }
  if (!view.held && event.offsetX > GUTTER) view.cursor = Math.max(0, Math.min(Math.round(timeOf(event.offsetX)), END));
  tip(event);
  refresh();
});
canvas.addEventListener("pointerup", (event) => {
  if (drag && !drag.moved && event.offsetX > GUTTER) hold(Math.round(timeOf(event.offsetX)));
  drag = null;
});
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("pointerleave", () => tip(null));
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const way = event.deltaMode === 1 ? 30 : 1;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    move(((event.deltaX || event.deltaY) * way) / 1200);
  } else {
    zoom(Math.exp((event.deltaY * way) / 500), timeOf(Math.max(event.offsetX, GUTTER)));
  }
  tip(null);
}, { passive: false });

function dragOverview(event) {
  if (!event.buttons) return;
  const at = ((event.offsetX - GUTTER) / (overview.clientWidth - GUTTER)) * END;
  const half = (view.to - view.from) / 2;
  show(at - half, at + half);
}
overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); dragOverview(event); });
overview.addEventListener("pointermove", dragOverview);

byId("events").addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) hold(Number(item.dataset.at));
});

const KEYS = {
  "+": () => zoom(0.6, view.held ? view.cursor : (view.from + view.to) / 2),
  "-": () => zoom(1 / 0.6, view.held ? view.cursor : (view.from + view.to) / 2),
  ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2),
  0: () => show(0, END), v: toViolation, j: () => step(1), k: () => step(-1),
  Escape: () => { view.held = false; refresh(); },
  "?": () => byId("help").showModal(),
  "/": () => byId("search").focus(),
};
KEYS["="] = KEYS["+"];
addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open || !Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
});

// Filters.

function chips(title, entries, hidden) {
  const set = element("fieldset", {}, element("legend", { textContent: title }));
  for (const [value, label, colour] of entries) {
    const chip = element("button", { className: "chip", type: "button", textContent: label });
    chip.setAttribute("aria-pressed", String(!hidden.has(value)));
    if (colour) chip.style.setProperty("--chip", `var(${colour})`);
    const turn = (alone) => {
      if (alone) {
        // Only this one; once more, and all are back.
        const others = entries.map(([one]) => one).filter((one) => one !== value);
        const isAlone = !hidden.has(value) && others.every((one) => hidden.has(one));
        hidden.clear();
        if (!isAlone) others.forEach((one) => hidden.add(one));
      } else if (!hidden.delete(value)) hidden.add(value);
      [...set.querySelectorAll("button")].forEach((one, place) =>
        one.setAttribute("aria-pressed", String(!hidden.has(entries[place][0]))));
      filterMessages();
      refresh();
    };
    chip.title = "Click: show or hide. Double-click: only this one.";
    chip.addEventListener("click", (event) => turn(event.detail === 2 || event.shiftKey));
    set.append(chip);
  }
  return set;
}

function timeInput(title, property, otherwise) {
  const input = element("input", { placeholder: title, title: `Only events ${title} this time, in seconds` });
  input.setAttribute("aria-label", input.title);
  input.style.width = "6.5em";
  input.addEventListener("input", () => {
    const at = Number.parseFloat(input.value.replace(",", ".")) * 1e6;
    filter[property] = Number.isFinite(at) ? at : otherwise;
    refresh();
  });
  return input;
}

// A commit as people name it, and whether the sources had changes beside it.
const shortCommit = () => (data.commit || "unknown").replace(/^[0-9a-f]{40}/, (hash) => hash.slice(0, 10));

function fill() {
  byId("title").textContent = `${data.simulation} simulation · seed ${data.seed}`;
  const operations = requests.length ? `, ${plural(requests.length, "request")}` : "";
  byId("counts").textContent = `${plural(data.nodes.length, "node")}, ${plural(spans.length, "span")}, `
    + `${plural(messages.length, "message")} (${grouped(lostMessages)} lost), ${plural(data.faults.length, "fault")}`
    + `${operations}, ${(END / 1e6).toFixed(3)} s · commit ${shortCommit()}`;
  const search = element("input", { id: "search", placeholder: "search the list  /", type: "search" });
  search.setAttribute("aria-label", "Search the list");
  search.addEventListener("input", () => { filter.words = search.value.trim().toLowerCase(); refresh(); });
  const byCount = [...kinds].sort(([, one], [, other]) => other - one);
  const classes = CLASSES.filter((name) => data.faults.some((fault) => fault.class === name));
  byId("filters").append(
    chips("nodes", data.nodes.map((node) => [node, String(node)]), filter.nodes),
    chips("faults", classes.map((name) => [name, name, `--${name}`]), filter.classes),
    chips("layers", [["messages", "messages"], ["arrived", "messages that arrive"], ["requests", "requests"],
      ["positions", "log positions"]], filter.layers),
    element("fieldset", {}, timeInput("from", "from", 0), timeInput("until", "to", END), search),
    chips("messages", byCount.map(([kind, count]) => [kind, `${text(kind)} ${grouped(count)}`, colourOf(text(kind))]), filter.kinds),
  );
  const broken = data.violation;
  byId("violation").hidden = byId("to-violation").hidden = !broken;
  if (broken) {
    byId("broken").textContent = `✖ ${broken.checker}`;
    byId("when").textContent = `at ${seconds(broken.at)} s` + (broken.steps ? `, step ${grouped(broken.steps)}` : "");
    byId("seen").textContent = broken.seen;
    byId("commands").append(...data.commands.map(([name, command]) =>
      element("span", {}, element("span", { className: "quiet", textContent: `${name}: ` }), element("code", { textContent: command }))));
  }
}

byId("whole").addEventListener("click", () => show(0, END));
byId("to-violation").addEventListener("click", toViolation);
byId("help-button").addEventListener("click", () => byId("help").showModal());
new ResizeObserver(refresh).observe(byId("stage"));

fill();
readColours();
show(0, END);
toViolation();
paint();
list();
// What tests look at: everything above went well when this is there.
Object.assign(document.documentElement.dataset, {
  lanes: layout.lanes.length, spans: spans.length, messages: messages.length, requests: requests.length,
  faults: data.faults.length, moments: moments.length,
});
