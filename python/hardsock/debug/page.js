"use strict";
// All text goes in as text: nothing that a peer has said is ever markup.

const byId = (id) => document.getElementById(id);

// What would be invisible, or turn the direction of what follows, is spelt out.
const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;
const spell = (text) => String(text).replace(HIDDEN, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));

function make(tag, text, name) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = spell(text);
  if (name) node.className = name;
  return node;
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return Math.round(value * 1000) + " ms";
  if (value < 60) return value.toFixed(1) + " s";
  if (value < 3600) return Math.floor(value / 60) + " min " + Math.floor(value % 60) + " s";
  return Math.floor(value / 3600) + " h " + Math.floor((value % 3600) / 60) + " min";
}

function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  const units = ["B", "kB", "MB", "GB", "TB"];
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit++; }
  return (unit ? value.toFixed(1) : value) + " " + units[unit];
}

const place = (site) => site ? site.file + ":" + site.line + " in " + site.function : "unknown";
const or = (value) => value === null || value === undefined ? "–" : String(value);

// columns: [label, kind ("t" text, "n" number), value of a row, whether it is bad]
function table(rows, columns, none) {
  if (!rows.length) return make("p", none, "none");
  const box = make("div", undefined, "box");
  const node = box.appendChild(make("table"));
  const head = node.appendChild(make("thead")).appendChild(make("tr"));
  for (const [label, kind] of columns) head.appendChild(make("th", label, kind));
  const body = node.appendChild(make("tbody"));
  for (const row of rows) {
    const line = body.appendChild(make("tr"));
    for (const [label, kind, value, bad] of columns) {
      const cell = line.appendChild(make("td", undefined, kind + (bad && bad(row) ? " bad" : "")));
      cell.dataset.label = label;
      cell.appendChild(make("span", or(value(row))));
    }
  }
  return box;
}

function fill(id, ...nodes) { byId(id).replaceChildren(...nodes); }

function figure(label, value, bad) {
  const node = make("div", undefined, "figure" + (bad ? " bad" : ""));
  node.append(make("b", value), make("span", label));
  return node;
}

function showFigures(data) {
  const fds = data.metrics.descriptors;
  const open = Object.values(data.metrics.open_connections).reduce((a, b) => a + b, 0);
  const sum = (name) => data.pools.reduce((total, pool) => total + pool[name], 0);
  const stall = (name) => data.stalls[name];
  fill("figures",
    figure("descriptors" + (fds.limit ? " of " + fds.limit : ""), fds.open, fds.limit && fds.open > 0.8 * fds.limit),
    figure("connections", open),
    figure("lent of " + sum("max_size") + " in pools", sum("lent"), sum("waiting") > 0),
    figure("wait for a pool", sum("waiting"), sum("waiting") > 0),
    figure("longest wait for the GIL", seconds(stall("gil")), stall("gil") > 0.1),
    figure("longest that bytes lay unread", seconds(stall("application")), stall("application") > 1));
}

function showDescriptors(history, limit) {
  if (history.length < 2) { fill("descriptors", make("p", "Sampled every few seconds from now on.", "none")); return; }
  const names = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(names, "svg");
  svg.setAttribute("viewBox", "0 0 1000 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const most = Math.max(...history.map((one) => one[1]));
  svg.setAttribute("aria-label", "descriptors over time, at most " + most);
  const oldest = history[0][0];
  const line = document.createElementNS(names, "polyline");
  line.setAttribute("points", history.map(([ago, n]) =>
    (1000 - 1000 * ago / oldest).toFixed(1) + "," + (97 - 92 * n / (most || 1)).toFixed(1)).join(" "));
  svg.appendChild(line);
  const axis = make("div", undefined, "axis");
  axis.append(make("span", seconds(oldest) + " ago"), make("span", "most: " + most + (limit ? " of " + limit : "")), make("span", "now"));
  const box = make("div", undefined, "box");
  box.append(svg, axis);
  fill("descriptors", box);
}

const people = [
  ["line", "t", (r) => place(r.site)],
  ["thread", "t", (r) => r.thread_name],
  ["for", "n", (r) => seconds(r.age), (r) => r.overdue || r.age > 30],
];

function showPools(pools) {
  const nodes = [];
  for (const pool of pools) {
    const title = make("h3", pool.name + " ");
    title.appendChild(make("small", pool.lent + " lent, " + pool.idle + " idle, " + pool.dialing + " dialing of " +
      pool.max_size + "; " + pool.waiting + " wait; " + pool.timeouts + " timeouts; made at " + place(pool.site)));
    nodes.push(title);
    if (pool.dial_error) nodes.push(make("p", "last dial: " + pool.dial_error));
    if (pool.holders.length) nodes.push(make("h3", "who holds"), table(pool.holders, people, ""));
    if (pool.waiters.length) nodes.push(make("h3", "who waits"), table(pool.waiters, people, ""));
  }
  fill("pools", ...(nodes.length ? nodes : [make("p", "There are none.", "none")]));
}

function show(data) {
  byId("process").textContent = "process " + data.pid;
  showFigures(data);
  showDescriptors(data.history, data.metrics.descriptors.limit);
  showPools(data.pools);
  fill("servers", table(data.servers, [
    ["name", "t", (r) => r.name], ["state", "t", (r) => r.state, (r) => r.state === "full" || r.state === "failing"],
    ["busy", "n", (r) => r.busy], ["parked", "n", (r) => r.parked], ["wait", "n", (r) => r.waiting, (r) => r.waiting > 0],
    ["linger", "n", (r) => r.lingering], ["limit", "n", (r) => r.limit || "–"], ["accepted", "n", (r) => r.accepted],
    ["failed", "n", (r) => r.failed], ["cut", "n", (r) => r.cut], ["refused", "n", (r) => r.refused, (r) => r.refused > 0],
    ["drains for", "n", (r) => seconds(r.draining)], ["kind", "t", (r) => r.kind],
  ], "There are none."));
  fill("listeners", table(data.listeners, [
    ["address", "t", (r) => r.address], ["accepted", "n", (r) => r.accepted],
    ["queue", "n", (r) => r.queue === null ? "–" : r.queue + " of " + r.backlog, (r) => r.queue > 0.5 * r.backlog],
    ["shed", "n", (r) => r.shed, (r) => r.shed > 0],
    ["no descriptors", "n", (r) => r.exhausted, (r) => r.exhausted > 0], ["TLS", "t", (r) => r.tls ? "yes" : "no"],
    ["handshakes", "n", (r) => r.handshakes],
  ], "There are none."));
  fill("breakers", table(data.breakers, [
    ["key", "t", (r) => r.key], ["state", "t", (r) => r.state, (r) => r.state === "open"],
    ["failures", "n", (r) => r.failures], ["refused", "n", (r) => r.refused], ["next try in", "n", (r) => seconds(r.retry_in)],
  ], "There are none."));
  fill("sites", table(data.sites, [
    ["line", "t", (r) => place(r.site)], ["how", "t", (r) => r.how], ["open", "n", (r) => r.open],
    ["oldest", "n", (r) => seconds(r.oldest)], ["idle", "n", (r) => seconds(r.idle)], ["waiting", "n", (r) => r.waiting],
    ["received", "n", (r) => bytes(r.received)], ["sent", "n", (r) => bytes(r.sent)], ["unread", "n", (r) => bytes(r.unread)],
    ["unsent", "n", (r) => bytes(r.unsent)], ["retransmits", "n", (r) => r.retransmits],
  ], "There are none."));
  const left = data.connections_total - data.connections.length;
  fill("connections", table(data.connections, [
    ["peer", "t", (r) => r.peer], ["line", "t", (r) => place(r.site)], ["state", "t", (r) => r.state],
    ["phase", "t", (r) => r.phase], ["age", "n", (r) => seconds(r.age)], ["idle", "n", (r) => seconds(r.idle)], ["unread", "n", (r) => bytes(r.unread)],
    ["unsent", "n", (r) => bytes(r.unsent)], ["retransmits", "n", (r) => r.retransmits, (r) => r.retransmits > 0],
  ], "There are none."), ...(left > 0 ? [make("p", left + " more", "none")] : []));
  fill("events", table(data.events, [
    ["ago", "n", (r) => seconds(r.age)], ["what", "t", (r) => r.kind.replaceAll("_", " ") + (r.what ? " " + r.what : "")],
    ["error", "t", (r) => r.error], ["line", "t", (r) => place(r.site)], ["hint", "t", (r) => r.hint],
  ], "Nothing has gone wrong."));
  byId("state").textContent = "as of " + new Date(data.at * 1000).toLocaleTimeString();
  byId("state").className = "";
  document.body.dataset.looks = String(1 + Number(document.body.dataset.looks || 0));
}

const source = new EventSource("events");
let heard = Date.now();
source.onmessage = (event) => { heard = Date.now(); show(JSON.parse(event.data)); };
setInterval(() => {
  if (Date.now() - heard < 10000) return;
  byId("state").textContent = "no answer for " + seconds((Date.now() - heard) / 1000);
  byId("state").className = "stale";
}, 1000);
