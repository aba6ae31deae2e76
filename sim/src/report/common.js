// What the pages share: the data, small helpers, the colour scheme, and a count of errors for tests.

window.addEventListener("error", () => {
  const root = document.documentElement;
  root.dataset.errors = String(Number(root.dataset.errors || 0) + 1);
});

const data = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

// An element with properties and children; texts are only ever texts.
function element(tag, properties, ...children) {
  const node = document.createElement(tag);
  Object.assign(node, properties);
  node.append(...children);
  return node;
}

const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");

const plural = (number, one, many = one + "s") => `${grouped(number)} ${number === 1 ? one : many}`;

// Microseconds as seconds with all digits.
const seconds = (micros) => (micros / 1e6).toFixed(6);

// A span of microseconds in the unit that suits it.
function span(micros) {
  if (micros < 1000) return `${Math.round(micros)} µs`;
  if (micros < 1e6) return `${+(micros / 1000).toPrecision(4)} ms`;
  return `${+(micros / 1e6).toPrecision(5)} s`;
}

// Called whenever colours change.
let repaint = () => {};

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  repaint();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint());
