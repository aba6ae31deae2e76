// A page over many runs.

const BARS = 48;

// Splits a distribution into bars of equal width up to its 99.5th percentile; the last bar holds what is beyond.
function histogram(counts) {
  const limit = percentile(counts, 0.995) + 1;
  const width = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((one) => one * BARS >= limit) || 20000;
  const bars = new Array(Math.ceil(limit / width) + 1).fill(0);
  for (const [milliseconds, count] of counts) bars[Math.min(Math.floor(milliseconds / width), bars.length - 1)] += count;
  if (bars.at(-1) === 0) bars.pop();
  return { width, bars };
}

const total = (counts) => counts.reduce((sum, [, count]) => sum + count, 0);

function percentile(counts, share) {
  let left = Math.max(1, Math.ceil(total(counts) * share));
  for (const [milliseconds, count] of counts) {
    left -= count;
    if (left <= 0) return milliseconds;
  }
  return 0;
}

function card(title, about, ...children) {
  const head = element("h2", { textContent: title });
  byId("cards").append(element("section", { className: "card" }, head,
    element("p", { className: "quiet", textContent: about }), ...children));
}

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text, place) =>
    element("th", { textContent: text, className: place ? "number" : "" })));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, place) =>
    (cell instanceof Node ? element("td", {}, cell)
      : element("td", { textContent: cell, className: place ? "number" : "" })))));
  return element("table", {}, head, ...body);
}

function distribution(title, about, counts) {
  if (!counts.length) return card(title, "There were none.");
  const { width, bars } = histogram(counts);
  const most = Math.max(...bars);
  const chart = element("div", { className: "bars" }, ...bars.map((count, place) => {
    const beyond = place === bars.length - 1 && percentile(counts, 1) >= (place + 1) * width;
    const range = beyond ? `${place * width} ms and more` : `${place * width} to ${(place + 1) * width} ms`;
    const bar = element("div", { title: `${range}: ${grouped(count)}` });
    bar.style.height = `${(count / most) * 100}%`;
    return bar;
  }));
  const scale = element("div", { className: "scale" }, ...[0, 0.25, 0.5, 0.75, 1].map((share) =>
    element("span", { textContent: `${Math.round(share * bars.length * width)} ms` })));
  const shares = [["median", 0.5], ["p90", 0.9], ["p99", 0.99], ["longest", 1]];
  const rows = shares.map(([name, share]) => [name, `${grouped(percentile(counts, share))} ms`]);
  card(title, `${about} ${grouped(total(counts))} of them.`, chart, scale, table(["", ""], rows));
}

function bars(title, about, rows) {
  const most = Math.max(...rows.map(([, count]) => count), 1);
  card(title, about, table(["", "", ""], rows.map(([name, count]) => {
    const bar = element("div", { className: "bar" });
    bar.style.width = `${(count / most) * 100}%`;
    return [name, grouped(count), bar];
  })));
}

const statistic = (name) => (data.statistics.find(([one]) => one === name) || [name, 0])[1];

function slowest(title, about, rows) {
  const { engine, nodes, seconds: length } = data.setting;
  const [command, see] = engine === "nodes" ? ["run", "--log info"] : ["core", "--verbose"];
  card(title, `${about} See one: quorate-sim ${command} --nodes ${nodes} --seconds ${length} ${see} --seeds SEED`,
    table(["seed", "milliseconds"], rows.map(([seed, took]) => [String(seed), grouped(took)])));
}

const { setting } = data;
byId("title").textContent = `${plural(setting.nodes, "node")} · seeds ${setting.seeds}`;
const speed = Math.round(statistic("steps") / Math.max(data.wall_ms / 1000, 0.001));
byId("counts").textContent = `${plural(data.runs, "run")} of ${setting.seconds} s with faults, `
  + `${grouped(Math.round(statistic("simulated nanoseconds") / 1e9))} simulated seconds in ${(data.wall_ms / 1000).toFixed(1)} s, `
  + `${plural(setting.jobs, "job")}, ${grouped(speed)} steps a second · commit ${data.commit.replace(/^([0-9a-f]{10})[0-9a-f]{30}/, "$1")}`;
byId("violation").hidden = !data.violation;
byId("seen").textContent = data.violation || "";

distribution("Failovers", "From the end of the process that led to the next election, whatever else is broken meanwhile.", data.failovers);
distribution("Recoveries", "From healing everything to full agreement, at the end of each run.", data.recoveries);
const byCount = (rows) => [...rows].sort(([, one], [, other]) => other - one);
bars("Faults", "How often each kind came.", byCount(data.faults));
slowest("Slowest to recover", "Seeds and how long they took from healing to agreement, in simulated time.", data.slowest_to_recover);
slowest("Slowest to run", "Seeds and how long their runs took.", data.slowest);
const hidden = ["simulated nanoseconds", "nanoseconds of recovery", "nanoseconds of recovery of quorums"];
// Of production nodes nobody looks for marks.
if (data.marks.length) {
  const marks = table(["", "seeds", "first seed"], data.marks.map(([name, , seeds, first]) =>
    [name, grouped(seeds), first === null ? "never" : String(first)]));
  data.marks.forEach(([, sentence, seeds], row) => {
    marks.rows[row + 1].title = sentence;
    marks.rows[row + 1].classList.toggle("never", seeds === 0);
  });
  card("Marks", "Situations that seeds must bring about, and in how many they did. Point at one to read what it is.", marks);
}
const happened = data.statistics.filter(([name]) => !hidden.includes(name));
const sums = table(["", "in all", "a run"], happened.map(([name, count]) =>
  [name, grouped(count), String(+(count / Math.max(data.runs, 1)).toPrecision(3))]));
happened.forEach(([, count], row) => sums.rows[row + 1].classList.toggle("never", count === 0));
card("What happened", "Sums over all runs. What never happens, in red, is not tested.", sums);

Object.assign(document.documentElement.dataset, { cards: byId("cards").children.length, runs: data.runs });
