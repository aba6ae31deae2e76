// The columns of the run, indexes over them, and what the filters let through.

const PARTS = data.parts;
const PAUSED = PARTS.indexOf("paused");
const OPERATIONS = ["write", "read", "change of members", "transfer"];
const ANSWERS = ["acknowledged", "refused", "unknown", "no answer yet"];
const FATES = ["arrived", "arrived again", "under way", "lost: the link is cut", "lost: dropped", "lost: nobody runs there"];
const LOST = 3;
const CLASSES = ["network", "process", "disk", "clock"];
const END = Math.max(data.end, 1);

// Rows of one width in a flat list.
class Rows {
  constructor(numbers, width) {
    this.numbers = Float64Array.from(numbers);
    this.width = width;
    this.length = numbers.length / width;
  }
  get(row, column) { return this.numbers[row * this.width + column]; }
}

const spans = new Rows(data.spans, 6);
const messages = new Rows(data.messages, 8);
const requests = new Rows(data.requests, 7);
const events = new Rows(data.events, 4);
const text = (place) => data.strings[place];
const laneOf = new Map(data.nodes.map((node, lane) => [node, lane]));

// Positions by lane, each in the order of time.
const positions = data.nodes.map(() => []);
for (let at = 0; at < data.positions.length; at += 6) {
  positions[laneOf.get(data.positions[at])].push(data.positions.slice(at + 1, at + 6));
}

// Spans by lane, likewise.
const spansOf = data.nodes.map(() => []);
for (let row = 0; row < spans.length; row++) spansOf[laneOf.get(spans.get(row, 0))].push(row);
for (const rows of spansOf) rows.sort((one, other) => spans.get(one, 1) - spans.get(other, 1));

// Finds the rows that touch a window of time without looking at all of them: rows in the order of their beginnings, and
// for each block of them the latest end.
class Window {
  constructor(rows, fromColumn, toColumn) {
    Object.assign(this, { rows, fromColumn, toColumn });
    this.order = Uint32Array.from({ length: rows.length }, (_, row) => row);
    this.order.sort((one, other) => rows.get(one, fromColumn) - rows.get(other, fromColumn) || one - other);
    this.ends = [];
    for (let place = 0; place < this.order.length; place++) {
      const block = place >> 8;
      this.ends[block] = Math.max(this.ends[block] || 0, rows.get(this.order[place], toColumn));
    }
  }
  each(from, to, visit) {
    for (let block = 0; block < this.ends.length; block++) {
      if (this.ends[block] < from) continue;
      const last = Math.min(this.order.length, (block + 1) << 8);
      for (let place = block << 8; place < last; place++) {
        const row = this.order[place];
        if (this.rows.get(row, this.fromColumn) > to) return;
        if (this.rows.get(row, this.toColumn) >= from) visit(row);
      }
    }
  }
}

const messagesIn = new Window(messages, 0, 1);
const requestsIn = new Window(requests, 1, 2);

// Bands that do not overlap: each fault gets the first row that is free.
const faultRows = [];
for (const fault of data.faults) {
  // A fault without a duration still needs room for a mark.
  const room = Math.max(fault.to, fault.from + END / 200);
  let row = faultRows.findIndex((free) => free <= fault.from);
  if (row < 0) row = faultRows.length < 5 ? faultRows.length : fault.from % 5;
  faultRows[row] = room;
  fault.row = row;
}

// Requests of one lane side by side, in a few rows.
const REQUEST_ROWS = 4;
const requestRow = new Uint8Array(requests.length);
{
  const free = data.nodes.map(() => new Array(REQUEST_ROWS).fill(0));
  requestsIn.each(0, END, (row) => {
    const lane = free[laneOf.get(requests.get(row, 0))] || free[0];
    let place = lane.findIndex((until) => until <= requests.get(row, 1));
    if (place < 0) place = lane.indexOf(Math.min(...lane));
    lane[place] = requests.get(row, 2) + 300;
    requestRow[row] = place;
  });
}

// Kinds of messages, the most frequent first.
const kinds = new Map();
let lostMessages = 0;
for (let row = 0; row < messages.length; row++) {
  const kind = messages.get(row, 4);
  kinds.set(kind, (kinds.get(kind) || 0) + 1);
  if (messages.get(row, 5) >= LOST) lostMessages++;
}

function colourOf(kind) {
  if (kind.startsWith("append") || kind === "begin") return "--append";
  if (kind.includes("vote") || kind === "timeout-now") return "--vote";
  if (kind.startsWith("snapshot")) return "--snapshot";
  if (kind.startsWith("read")) return "--read";
  return "--beat";
}

// What is shown. Sets hold what is hidden, so that nothing is hidden at first.
const filter = {
  nodes: new Set(), kinds: new Set(), classes: new Set(), layers: new Set(), from: 0, to: END, words: "",
};

const passes = (row) => !filter.layers.has("messages") && !filter.kinds.has(messages.get(row, 4))
  && !filter.nodes.has(messages.get(row, 2)) && !filter.nodes.has(messages.get(row, 3))
  && (!filter.layers.has("arrived") || messages.get(row, 5) >= LOST);
// Every message is asked about in every frame, and the answer changes with the filters only.
const passing = new Uint8Array(messages.length).fill(1);
const filterMessages = () => passing.forEach((_, row) => { passing[row] = Number(passes(row)); });
const showsMessage = (row) => passing[row] === 1;
const showsRequest = (row) => !filter.layers.has("requests") && !filter.nodes.has(requests.get(row, 0));
const showsFault = (fault) => !filter.classes.has(fault.class)
  && (fault.nodes.length === 0 || fault.nodes.some((node) => !filter.nodes.has(node)));

// Everything that happened, in the order of time: what kind of row, which one, and which end of it.
const [SENT, ARRIVED, ASKED, ANSWERED, FAULT, ROLE, EVENT] = [0, 1, 2, 3, 4, 5, 6];
const moments = [];
const add = (at, kind, row) => moments.push({ at, kind, row });
for (let row = 0; row < messages.length; row++) {
  if (messages.get(row, 5) !== 1) add(messages.get(row, 0), SENT, row);
  if (messages.get(row, 5) !== 2) add(messages.get(row, 1), ARRIVED, row);
}
for (let row = 0; row < requests.length; row++) {
  // What is answered at once is told once.
  if (requests.get(row, 2) > requests.get(row, 1) || requests.get(row, 4) >= 3) add(requests.get(row, 1), ASKED, row);
  if (requests.get(row, 4) < 3) add(requests.get(row, 2), ANSWERED, row);
}
data.faults.forEach((fault, row) => add(fault.from, FAULT, row));
for (let row = 0; row < spans.length; row++) {
  if (spans.get(row, 3) < PAUSED) add(spans.get(row, 1), ROLE, row);
}
for (let row = 0; row < events.length; row++) add(events.get(row, 0), EVENT, row);
// At one moment causes come before what follows from them: faults, arrivals, then the rest.
const RANK = { [FAULT]: 0, [ARRIVED]: 1, [ASKED]: 2, [EVENT]: 3, [ROLE]: 4, [SENT]: 5, [ANSWERED]: 6 };
moments.sort((one, other) => one.at - other.at || RANK[one.kind] - RANK[other.kind] || one.row - other.row);

// The first moment at or after a time.
function momentAt(at) {
  let [low, high] = [0, moments.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (moments[middle].at < at) low = middle + 1; else high = middle;
  }
  return low;
}

const nodeName = (node) => (node ? `node ${node}` : "cluster");

// A moment as the list shows it: who, what, more, and the colour of its mark. Null when a filter hides it.
function describe({ kind, row }) {
  if (kind === SENT || kind === ARRIVED) {
    if (!showsMessage(row)) return null;
    const [name, from, to] = [text(messages.get(row, 4)), messages.get(row, 2), messages.get(row, 3)];
    const fate = messages.get(row, 5);
    const lost = fate >= LOST;
    const mark = lost ? "--bad" : colourOf(name);
    const about = `term ${messages.get(row, 6)} ${text(messages.get(row, 7))}`;
    if (kind === SENT) return { who: `${from} → ${to}`, what: name, about, mark };
    const took = span(messages.get(row, 1) - messages.get(row, 0));
    const what = `${name} ${lost ? FATES[fate] : FATES[fate] + " after " + took}`;
    return { who: `${to} ← ${from}`, what, about: lost ? "" : about, mark };
  }
  if (kind === ASKED || kind === ANSWERED) {
    if (!showsRequest(row)) return null;
    const [who, operation] = [nodeName(requests.get(row, 0)), OPERATIONS[requests.get(row, 3)]];
    if (kind === ASKED) return { who, what: `asked: ${operation}`, about: text(requests.get(row, 5)), mark: "--quiet" };
    const answer = requests.get(row, 4);
    const took = span(requests.get(row, 2) - requests.get(row, 1));
    const about = `${text(requests.get(row, 5))}: ${text(requests.get(row, 6))} (${took})`;
    return { who, what: `${operation} ${ANSWERS[answer]}`, about, mark: ["--good", "--process", "--quiet"][answer] };
  }
  if (kind === FAULT) {
    const fault = data.faults[row];
    if (!showsFault(fault)) return null;
    const lasts = fault.to > fault.from ? ` for ${span(fault.to - fault.from)}` : "";
    const who = fault.nodes.length ? fault.nodes.map(nodeName).join(", ") : "fault";
    return { who, what: `${fault.name}${lasts}`, about: fault.about, mark: `--${fault.class}` };
  }
  if (kind === ROLE) {
    const node = spans.get(row, 0);
    if (filter.nodes.has(node)) return null;
    const [part, leader] = [PARTS[spans.get(row, 3)], spans.get(row, 5)];
    const about = `term ${spans.get(row, 4)}${leader && leader !== node ? `, leader ${leader}` : ""}`;
    return { who: nodeName(node), what: `is ${part}`, about, mark: `--${part}` };
  }
  const node = events.get(row, 1);
  if (node && filter.nodes.has(node)) return null;
  const what = text(events.get(row, 2));
  return { who: nodeName(node), what, about: text(events.get(row, 3)), mark: what === "violation" ? "--bad" : "--accent" };
}

function isWanted(moment) {
  if (moment.at < filter.from || moment.at > filter.to) return null;
  const description = describe(moment);
  if (!description || !filter.words) return description;
  const whole = `${description.who} ${description.what} ${description.about}`.toLowerCase();
  return filter.words.split(" ").every((word) => whole.includes(word)) ? description : null;
}

// What a node is at a time: the row of its span, or -1.
function spanAt(lane, at) {
  const rows = spansOf[lane];
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (spans.get(rows[middle], 1) <= at) low = middle + 1; else high = middle;
  }
  return low ? rows[low - 1] : -1;
}

// The first position of a lane after a time.
function positionAfter(lane, at) {
  const rows = positions[lane];
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle][0] <= at) low = middle + 1; else high = middle;
  }
  return low;
}
