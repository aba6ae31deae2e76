// Draws what is in view, and nothing else.

const GUTTER = 108;
const AXIS = 20;
const FAULT_ROW = 15;
const BAR = 20;
// More lines than this say less than a bar that counts them.
const LINES_MAX = 5000;

const view = { from: 0, to: END, cursor: END, held: false, hover: null };
const canvas = byId("timeline");
const overview = byId("overview");
let colours = {};
let layout = { width: 0, height: 0, lanes: [], faults: 0, top: 0 };

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const probe = document.body.appendChild(element("span", {}));
  colours = {};
  for (const name of ["ground", "raised", "line", "text", "quiet", "accent", "bad", "good", "append", "vote", "beat",
    "snapshot", "read", ...PARTS, ...CLASSES]) {
    if (!style.getPropertyValue(`--${name}`)) continue;
    // A canvas knows colours only, and `light-dark` is none until an element has it.
    probe.style.color = `var(--${name})`;
    colours[`--${name}`] = getComputedStyle(probe).color;
  }
  probe.remove();
}

const xOf = (at) => GUTTER + ((at - view.from) / (view.to - view.from)) * (layout.width - GUTTER);
const timeOf = (x) => view.from + ((x - GUTTER) / (layout.width - GUTTER)) * (view.to - view.from);

// A canvas that fits its element, sharp on every screen.
function prepare(target, width, height) {
  const ratio = window.devicePixelRatio || 1;
  if (target.width !== Math.round(width * ratio) || target.height !== Math.round(height * ratio)) {
    target.width = Math.round(width * ratio);
    target.height = Math.round(height * ratio);
    target.style.height = `${height}px`;
  }
  const context = target.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, 'Liberation Sans', sans-serif";
  context.textBaseline = "middle";
  return context;
}

// Where everything lies: the axis, rows of faults, and a lane a node.
function arrange() {
  const scroller = byId("scroller");
  const shown = data.nodes.filter((node) => !filter.nodes.has(node));
  const faults = faultRows.length ? faultRows.length * FAULT_ROW + 6 : 0;
  const top = AXIS + faults;
  const height = Math.max(104, Math.min(230, (scroller.clientHeight - top - 2) / Math.max(shown.length, 1)));
  const lanes = shown.map((node, place) => ({ node, lane: laneOf.get(node), top: top + place * height, height }));
  layout = { width: scroller.clientWidth, height: Math.max(top + lanes.length * height, scroller.clientHeight - 1), lanes, faults, top };
  layout.of = new Map(lanes.map((lane) => [lane.node, lane]));
  measurePositions();
}

const barMiddle = (lane) => lane.top + 8 + BAR / 2;
const requestsTop = (lane) => lane.top + 8 + BAR + 8;
const positionsTop = (lane) => requestsTop(lane) + REQUEST_ROWS * 5 + 5;

function paint() {
  arrange();
  const context = prepare(canvas, layout.width, layout.height);
  const clip = (draw) => {
    context.save();
    context.beginPath();
    context.rect(GUTTER, 0, layout.width - GUTTER, layout.height);
    context.clip();
    draw(context);
    context.restore();
  };
  clip(paintGrid);
  clip(paintFaults);
  for (const lane of layout.lanes) clip(() => paintPositions(context, lane));
  clip(paintMessages);
  for (const lane of layout.lanes) clip(() => paintSpans(context, lane));
  clip(paintRequests);
  clip(paintMarks);
  paintGutter(context);
  paintOverview();
}

// Steps of 1, 2 and 5 that leave room for their labels.
function stepOf(pixels) {
  const least = ((view.to - view.from) * pixels) / (layout.width - GUTTER);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

function paintGrid(context) {
  const step = Math.max(stepOf(90), 1);
  const digits = Math.min(6, Math.max(0, Math.ceil(6 - Math.log10(step) - 1e-9)));
  context.strokeStyle = colours["--line"];
  context.fillStyle = colours["--quiet"];
  context.lineWidth = 1;
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    const x = Math.round(xOf(at)) + 0.5;
    context.globalAlpha = 0.6;
    context.beginPath();
    context.moveTo(x, AXIS - 4);
    context.lineTo(x, layout.height);
    context.stroke();
    context.globalAlpha = 1;
    context.fillText(`${(at / 1e6).toFixed(digits)} s`, x + 3, AXIS / 2);
  }
}

function paintFaults(context) {
  for (const fault of data.faults) {
    if (fault.to < view.from || fault.from > view.to || !showsFault(fault)) continue;
    const colour = colours[`--${fault.class}`];
    const [x, end] = [xOf(fault.from), Math.max(xOf(fault.to), xOf(fault.from) + 3)];
    const y = AXIS + 2 + fault.row * FAULT_ROW;
    context.fillStyle = colour;
    for (const node of fault.nodes) {
      const lane = layout.of.get(node);
      if (!lane) continue;
      context.globalAlpha = 0.1;
      context.fillRect(x, lane.top + 2, end - x, lane.height - 4);
      context.globalAlpha = 0.8;
      context.fillRect(x, lane.top + 2, Math.max(end - x, 2), 3);
    }
    context.globalAlpha = 0.28;
    context.fillRect(x, y, end - x, FAULT_ROW - 2);
    context.globalAlpha = 1;
    context.fillRect(x, y, 3, FAULT_ROW - 2);
    const label = fault.nodes.length ? `${fault.name} ${fault.nodes.join(" ")}` : fault.name;
    const room = xOf(fault.to) - Math.max(x, GUTTER);
    if (context.measureText(label).width + 8 < room || view.to - view.from < END / 6) {
      context.fillStyle = colours["--text"];
      context.fillText(label, Math.max(x, GUTTER) + 6, y + FAULT_ROW / 2 - 1);
    }
  }
}

// Stripes for what does not move.
function hatch(context, x, y, width, height, colour) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = colour;
  context.globalAlpha = 0.55;
  context.beginPath();
  const first = Math.max(x, GUTTER) - height;
  const last = Math.min(x + width, layout.width);
  for (let at = Math.floor(first / 6) * 6; at < last; at += 6) {
    context.moveTo(at, y + height);
    context.lineTo(at + height, y);
  }
  context.stroke();
  context.restore();
}

function paintSpans(context, lane) {
  const rows = spansOf[lane.lane];
  const y = lane.top + 8;
  // Places are looked up, not counted: a span of the past may last until now.
  let place = Math.max(0, rows.indexOf(spanAt(lane.lane, view.from)));
  for (; place < rows.length && spans.get(rows[place], 1) <= view.to; place++) {
    const row = rows[place];
    const [from, to, part] = [spans.get(row, 1), spans.get(row, 2), spans.get(row, 3)];
    const [x, end] = [xOf(from), xOf(to)];
    const width = Math.max(end - x, 1);
    const still = part >= PAUSED;
    const colour = colours[`--${PARTS[part]}`] || colours["--down"];
    context.fillStyle = colour;
    context.fillRect(x, y, width, BAR);
    if (still) hatch(context, x, y, width, BAR, colours["--quiet"]);
    context.fillStyle = colours["--ground"];
    if (width > 3) context.fillRect(end - 0.5, y, 1, BAR);
    const left = Math.max(x, GUTTER) + 5;
    const room = Math.min(end, layout.width) - left - 3;
    const labels = still ? [PARTS[part]] : [`${PARTS[part]} · term ${spans.get(row, 4)}`, `t${spans.get(row, 4)}`];
    const label = room > 14 && labels.find((text) => context.measureText(text).width < room);
    if (label) {
      context.fillStyle = part === 0 || part === 6 ? "#fff" : colours["--text"];
      context.fillText(label, left, y + BAR / 2 + 0.5);
    }
  }
}

function paintPositions(context, lane) {
  if (filter.layers.has("positions")) return;
  const rows = positions[lane.lane];
  const [top, bottom] = [positionsTop(lane), lane.top + lane.height - 6];
  if (!rows.length || bottom - top < 12) return;
  const [low, high] = layout.range;
  const y = (index) => bottom - ((index - low) / Math.max(high - low, 1)) * (bottom - top);
  const first = Math.max(positionAfter(lane.lane, view.from) - 1, 0);
  const right = xOf(Math.min(END, view.to));
  const line = (column) => {
    let [x, height] = [xOf(rows[first][0]), y(rows[first][column])];
    context.moveTo(x, height);
    for (let place = first + 1; place < rows.length && rows[place][0] <= view.to; place++) {
      const next = xOf(rows[place][0]);
      height = y(rows[place - 1][column]);
      // Steps within half a pixel cannot be told from each other.
      if (next - x < 0.5) continue;
      x = next;
      context.lineTo(x, height);
      context.lineTo(x, y(rows[place][column]));
    }
    const last = Math.max(positionAfter(lane.lane, view.to) - 1, first);
    context.lineTo(right, y(rows[last][column]));
  };
  context.globalAlpha = 0.16;
  context.fillStyle = colours["--accent"];
  context.beginPath();
  line(4);
  context.lineTo(right, bottom);
  context.lineTo(xOf(rows[first][0]), bottom);
  context.fill();
  for (const [column, alpha, width] of [[1, 0.9, 1], [2, 0.75, 2]]) {
    context.globalAlpha = alpha;
    context.strokeStyle = colours[column === 1 ? "--accent" : "--good"];
    context.lineWidth = width;
    context.beginPath();
    line(column);
    context.stroke();
  }
  context.globalAlpha = 1;
  context.lineWidth = 1;
}

// The lowest and the highest index in view, so that all lanes have one scale.
function measurePositions() {
  let [low, high] = [Infinity, 0];
  for (const { lane } of layout.lanes) {
    const rows = positions[lane];
    for (let place = Math.max(positionAfter(lane, view.from) - 1, 0); place < rows.length; place++) {
      if (rows[place][0] > view.to) break;
      low = Math.min(low, rows[place][1], rows[place][2]);
      high = Math.max(high, rows[place][4]);
    }
  }
  layout.range = low > high ? [0, 1] : [low, high];
}

// The rows of messages in view; beyond LINES_MAX they are counted only.
function messagesInView() {
  const found = [];
  messagesIn.each(view.from, view.to, (row) => { if (showsMessage(row)) found.push(row); });
  return found;
}

function ends(row) {
  const [from, to] = [layout.of.get(messages.get(row, 2)), layout.of.get(messages.get(row, 3))];
  if (!from || !to) return null;
  const [x, end] = [xOf(messages.get(row, 0)), xOf(messages.get(row, 1))];
  const down = to.top > from.top;
  const y = barMiddle(from) + (down ? BAR / 2 : -BAR / 2);
  const yEnd = barMiddle(to) + (down ? -BAR / 2 : BAR / 2);
  const fate = messages.get(row, 5);
  // What is lost at once goes a part of the way.
  const part = fate === 3 || fate === 4 ? 0.35 : 1;
  const lean = part < 1 ? 8 : 0;
  return [x, y, x + (end - x) * part + lean, y + (yEnd - y) * part];
}

function paintMessages(context) {
  const found = messagesInView();
  layout.drawn = found;
  if (found.length > LINES_MAX) {
    paintTraffic(context, found);
    return;
  }
  const groups = new Map();
  for (const row of found) {
    const key = messages.get(row, 5) >= LOST ? "--bad" : colourOf(text(messages.get(row, 4)));
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  const alpha = found.length > 1500 ? 0.35 : found.length > 400 ? 0.55 : 0.85;
  for (const [colour, rows] of groups) {
    context.strokeStyle = colours[colour];
    context.globalAlpha = colour === "--bad" ? 0.9 : colour === "--beat" ? alpha * 0.7 : alpha;
    context.beginPath();
    for (const row of rows) {
      const line = ends(row);
      if (!line) continue;
      const [x, y, end, yEnd] = line;
      context.moveTo(x, y);
      context.lineTo(end, yEnd);
      if (colour === "--bad") cross(context, end, yEnd);
      else if (found.length < 800 && messages.get(row, 5) !== 2) arrow(context, x, y, end, yEnd);
    }
    context.stroke();
  }
  context.globalAlpha = 1;
}

function cross(context, x, y) {
  context.moveTo(x - 3, y - 3);
  context.lineTo(x + 3, y + 3);
  context.moveTo(x + 3, y - 3);
  context.lineTo(x - 3, y + 3);
}

function arrow(context, x, y, end, yEnd) {
  const length = Math.hypot(end - x, yEnd - y) || 1;
  const [dx, dy] = [((end - x) / length) * 6, ((yEnd - y) / length) * 6];
  context.moveTo(end - dx - dy * 0.45, yEnd - dy + dx * 0.45);
  context.lineTo(end, yEnd);
  context.lineTo(end - dx + dy * 0.45, yEnd - dy - dx * 0.45);
}

// How many messages each node sends, and how many of them are lost, by the column.
function paintTraffic(context, found) {
  const columns = Math.ceil((layout.width - GUTTER) / 3);
  const counts = new Map(layout.lanes.map((lane) => [lane.node, [new Uint32Array(columns), new Uint32Array(columns)]]));
  let most = 1;
  for (const row of found) {
    const column = Math.floor((xOf(messages.get(row, 0)) - GUTTER) / 3);
    const count = counts.get(messages.get(row, 2));
    if (!count || column < 0 || column >= columns) continue;
    most = Math.max(most, ++count[0][column]);
    if (messages.get(row, 5) >= LOST) count[1][column]++;
  }
  for (const lane of layout.lanes) {
    const y = lane.top + 8 + BAR;
    const [all, lost] = counts.get(lane.node);
    for (const [count, colour] of [[all, "--append"], [lost, "--bad"]]) {
      context.fillStyle = colours[colour];
      context.globalAlpha = colour === "--bad" ? 1 : 0.6;
      for (let column = 0; column < columns; column++) {
        if (!count[column]) continue;
        context.fillRect(GUTTER + column * 3, y + 1, 2, 1 + (count[column] / most) * 24);
      }
    }
  }
  context.globalAlpha = 1;
}

function paintRequests(context) {
  if (filter.layers.has("requests")) return;
  const paths = ANSWERS.map(() => new Path2D());
  // How far each row of each lane is drawn, for each answer: what lies on top of another is not drawn again.
  const drawn = ANSWERS.map(() => new Float64Array(data.nodes.length * REQUEST_ROWS).fill(-1));
  requestsIn.each(view.from, view.to, (row) => {
    const lane = layout.of.get(requests.get(row, 0));
    if (!lane) return;
    const answer = requests.get(row, 4);
    const [x, end] = [xOf(requests.get(row, 1)), xOf(requests.get(row, 2))];
    const place = lane.lane * REQUEST_ROWS + requestRow[row];
    if (end < drawn[answer][place]) return;
    drawn[answer][place] = end + 1;
    const y = requestsTop(lane) + requestRow[row] * 5;
    if (answer === 0) paths[answer].rect(x, y, Math.max(end - x, 2), 3);
    else paths[answer].rect(x + 0.5, y + 0.5, Math.max(end - x - 1, 1), 2);
  });
  context.fillStyle = colours["--good"];
  context.fill(paths[0]);
  for (const [answer, colour] of [[1, "--process"], [2, "--quiet"], [3, "--quiet"]]) {
    context.strokeStyle = colours[colour];
    context.setLineDash(answer === 1 ? [] : [2, 2]);
    context.stroke(paths[answer]);
  }
  context.setLineDash([]);
}

function verticalLine(context, at, colour, label, dashes) {
  if (at < view.from || at > view.to) return;
  const x = Math.round(xOf(at)) + 0.5;
  context.strokeStyle = context.fillStyle = colour;
  context.setLineDash(dashes);
  context.beginPath();
  context.moveTo(x, AXIS - 4);
  context.lineTo(x, layout.height);
  context.stroke();
  context.setLineDash([]);
  if (!label) return;
  const width = context.measureText(label).width + 8;
  const left = x + width > layout.width ? x - width : x;
  context.fillRect(left, 1, width, AXIS - 4);
  context.fillStyle = colours["--ground"];
  context.fillText(label, left + 4, AXIS / 2 - 1);
}

function paintMarks(context) {
  for (const at of data.healed) verticalLine(context, at, colours["--good"], "healed", [5, 4]);
  context.lineWidth = 2;
  if (data.violation) verticalLine(context, data.violation.at, colours["--bad"], "violation", []);
  context.lineWidth = 1;
  const atViolation = data.violation && data.violation.at === view.cursor;
  if (!atViolation) verticalLine(context, view.cursor, colours["--accent"], "", view.held ? [] : [2, 3]);
  context.fillStyle = colours["--ground"];
  context.globalAlpha = 0.7;
  for (const [from, to] of [[-1, filter.from], [filter.to, END + 1]]) {
    if (from < to && !(from === -1 && to === 0) && !(from === END)) {
      context.fillRect(xOf(from), AXIS, xOf(to) - xOf(from), layout.height);
    }
  }
  context.globalAlpha = 1;
}

function paintGutter(context) {
  context.fillStyle = colours["--ground"];
  context.fillRect(0, 0, GUTTER, layout.height);
  context.strokeStyle = colours["--line"];
  context.beginPath();
  context.moveTo(GUTTER - 0.5, 0);
  context.lineTo(GUTTER - 0.5, layout.height);
  for (const lane of layout.lanes) {
    context.moveTo(0, Math.round(lane.top) + 0.5);
    context.lineTo(layout.width, Math.round(lane.top) + 0.5);
  }
  context.stroke();
  if (layout.faults) {
    context.fillStyle = colours["--quiet"];
    context.fillText("faults", 10, AXIS + 9);
  }
  for (const lane of layout.lanes) {
    context.fillStyle = colours["--text"];
    context.font = "600 12px system-ui, 'Liberation Sans', sans-serif";
    context.fillText(nodeName(lane.node), 10, lane.top + 8 + BAR / 2);
    context.font = "11px system-ui, 'Liberation Sans', sans-serif";
    const row = spanAt(lane.lane, view.cursor);
    const place = positionAfter(lane.lane, view.cursor) - 1;
    context.fillStyle = colours["--quiet"];
    const lines = [];
    if (row >= 0) lines.push(`${PARTS[spans.get(row, 3)]}${spans.get(row, 3) < PAUSED ? ` · t${spans.get(row, 4)}` : ""}`);
    if (place >= 0) {
      const [, commit, applied, , last] = positions[lane.lane][place];
      lines.push(`applied ${applied}`, `commit ${commit}`, `last ${last}`);
    }
    lines.forEach((line, number) => context.fillText(line, 10, lane.top + 8 + BAR + 10 + number * 14));
  }
}

// The whole run in a strip: who leads, how much is lost, what breaks, and the part that is in view.
let strip = null;
function paintOverview() {
  const [width, height] = [overview.clientWidth, 44];
  const context = prepare(overview, width, height);
  const x = (at) => GUTTER + (at / END) * (width - GUTTER);
  if (!strip || strip.width !== width) {
    const buckets = new Float64Array(Math.ceil(width - GUTTER) + 1);
    for (let row = 0; row < messages.length; row++) buckets[Math.floor(x(messages.get(row, 0)) - GUTTER)]++;
    strip = { width, buckets, most: Math.max(...buckets, 1) };
  }
  context.fillStyle = colours["--beat"];
  strip.buckets.forEach((count, place) => {
    const tall = (count / strip.most) * 18;
    context.fillRect(GUTTER + place, 34 - tall, 1, tall);
  });
  for (const rows of spansOf) {
    for (const row of rows) {
      if (spans.get(row, 3) > 2) continue;
      context.fillStyle = colours[`--${PARTS[spans.get(row, 3)]}`];
      const [from, to] = [x(spans.get(row, 1)), x(spans.get(row, 2))];
      context.fillRect(from, 36, Math.max(to - from, 1), 6);
    }
  }
  for (const fault of data.faults) {
    context.fillStyle = colours[`--${fault.class}`];
    context.fillRect(x(fault.from), 3 + (fault.row % 5) * 2, Math.max(x(fault.to) - x(fault.from), 2), 1.5);
  }
  for (const at of data.healed) {
    context.fillStyle = colours["--good"];
    context.fillRect(x(at), 0, 1, height);
  }
  if (data.violation) {
    context.fillStyle = colours["--bad"];
    context.fillRect(x(data.violation.at) - 1, 0, 2, height);
  }
  const [from, to] = [x(view.from), x(view.to)];
  context.fillStyle = colours["--accent"];
  context.globalAlpha = 0.14;
  context.fillRect(from, 0, Math.max(to - from, 2), height);
  context.globalAlpha = 1;
  context.strokeStyle = colours["--accent"];
  context.strokeRect(from + 0.5, 0.5, Math.max(to - from - 1, 2), height - 1);
  context.fillStyle = colours["--quiet"];
  context.fillText("whole run", 10, 14);
  context.fillText(`${(END / 1e6).toFixed(2)} s`, 10, 30);
}
