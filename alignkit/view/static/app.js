"use strict";
// The page of `align view`. Every text of a run reaches the document as a text node; the state stands in the address.
(() => {
const { html, render, useEffect, useRef, useState, uPlot } = window.vendor;
const exported = document.getElementById("answers");
const answers = exported && JSON.parse(exported.textContent);
const CHARTS = ["train/reward", "train/loss", "train/nll", "validation/loss", "train/entropy", "train/response_length",
  "train/truncated", "train/groups_without_variance", "train/grad_norm", "train/kl", "train/rewards/margins", "train/rewards/accuracies"];
const KEYS = [["← →", "step"], ["j k", "group; in a table the next link, Enter follows it"], ["h l", "response"], ["w", "next wrong response"], ["d", "next group without signal"],
  ["n p", "next, previous finding's row"], ["Enter", "response at full width, and back"], ["/", "search questions"], ["f", "filter runs"],
  ["q", "this question across the steps"], ["c", "compare evals"], ["m", "mathematics"], ["r", "raw text"], ["y", "copy the link"],
  ["g", "all runs"], ["?", "these keys"]];

// -- state and data ---------------------------------------------------------------------------------------------------

function readState() {
  const [page, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { page: page || "runs", ...Object.fromEntries(new URLSearchParams(query)) };
}
function address({ page, ...rest }) {
  const stated = Object.entries(rest).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  return `#/${page}?${new URLSearchParams(stated)}`;
}
const state = { now: readState() };
function go(change, replace = false) {
  const next = change.page ? change : { ...state.now, ...change };
  const target = address(next);
  if (replace) history.replaceState(null, "", target); else history.pushState(null, "", target);
  state.now = readState();
  draw();
}
const number = (name, otherwise = 0) => Number(state.now[name] ?? otherwise);

async function ask(question, asked = {}) {
  const query = new URLSearchParams(Object.entries(asked).sort(([a], [b]) => (a < b ? -1 : 1)));
  if (answers) {
    const stored = answers[`${question}?${query}`];
    if (stored === undefined) throw new Error("this file does not hold that; the folder does: align view");
    return stored;
  }
  const address = `api/${question}?${query}`;
  if (kept.has(address)) return kept.get(address);
  const response = await fetch(address);
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  if (question === "step") keep(address, value);
  return value;
}
// Steps that were seen and their neighbours, so that walking waits for nothing.
const kept = new Map();
function keep(address, value) {
  kept.set(address, value);
  if (kept.size > 8) kept.delete(kept.keys().next().value);
}
// What was asked last stays in view until the new answer is there.
function useAsk(question, asked, extra = 0) {
  const [got, set] = useState({});
  const key = asked && JSON.stringify([question, asked, extra]);
  useEffect(() => {
    if (!key) return undefined;
    let current = true;
    ask(question, asked).then((value) => current && set({ key, value, asked }), (error) => current && set({ key, error: error.message, asked }));
    return () => { current = false; };
  }, [key]);
  return got;
}

// -- texts from outside ---------------------------------------------------------------------------------------------

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/;
const hex = (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
// Characters that act are shown by their number; `raw` shows blanks and line ends too.
function Shown({ text, raw, marks }) {
  const parts = [];
  let run = "";
  const flush = () => { if (run) parts.push(...marked(run, marks)); run = ""; };
  for (const c of String(text)) {
    if (HIDDEN.test(c) && c.length === 1) { flush(); parts.push(html`<span class="control">${hex(c)}</span>`); }
    else if (raw && c === "\n") run += "\u23ce\n";
    else if (raw && c === "\t") run += "\u21e5\t";
    else if (raw && c === " ") run += "\u00b7";
    else run += c;
  }
  flush();
  return html`<span>${parts}</span>`;
}
function marked(text, marks) {
  if (!marks) return [text];
  return text.split(/(<\/?(?:think|answer)>)/).map((part, place) => (place % 2 ? html`<span class="dim">${part}</span>` : part));
}
const FOLD = 3000;
function Text({ text, raw, math, label }) {
  const [open, setOpen] = useState(false);
  const all = String(text ?? "");
  const folded = all.length > FOLD && !open;
  const shown = folded ? `${all.slice(0, FOLD * 0.7)}\n…\n${all.slice(-FOLD * 0.3)}` : all;
  return html`<div>
    <pre tabindex="0" aria-label=${label}>${math ? html`<${Mathematics} text=${shown} />` : html`<${Shown} text=${shown} raw=${raw} marks=${!raw} />`}</pre>
    ${all.length > FOLD && html`<button onClick=${() => setOpen(!open)}>${open ? "fold" : `show all ${all.length.toLocaleString("en")} characters`}</button>`}
  </div>`;
}
let katexLoading;
function loadKatex() {
  katexLoading ??= new Promise((done, failed) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "katex/katex.min.css" });
    const script = Object.assign(document.createElement("script"), { src: "katex/katex.min.js", onload: done, onerror: failed });
    document.head.append(style, script);
  });
  return katexLoading;
}
function Mathematics({ text }) {
  const [ready, setReady] = useState(Boolean(window.katex));
  useEffect(() => { if (!answers && !ready) loadKatex().then(() => setReady(true), () => {}); }, []);
  if (!ready) return html`<${Shown} text=${text} />`;
  const parts = text.split(/(\$\$[^$]+\$\$|\$[^$\n]+\$|\\\[[^]*?\\\]|\\\([^]*?\\\)|\\boxed\{[^{}]*\})/);
  return html`<span>${parts.map((part, place) => (place % 2 ? html`<${Formula} source=${part} />` : html`<${Shown} text=${part} />`))}</span>`;
}
function Formula({ source }) {
  const at = useRef();
  useEffect(() => {
    const bare = source.replace(/^(\$\$?|\\\[|\\\()/, "").replace(/(\$\$?|\\\]|\\\))$/, "");
    window.katex.render(bare, at.current, { throwOnError: false, trust: false, maxExpand: 100, maxSize: 20 });
  }, [source]);
  return html`<span ref=${at}></span>`;
}

// -- numbers --------------------------------------------------------------------------------------------------------

const digits = (value) => (typeof value !== "number" ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString());
const fixed = (value) => (typeof value === "number" ? value.toFixed(3) : "–");
const points = (value) => `${value >= 0 ? "+" : ""}${(100 * value).toFixed(1)}`;
function duration(seconds) {
  if (typeof seconds !== "number") return "";
  return seconds < 120 ? `${seconds.toFixed(0)} s` : seconds < 7200 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
const Failed = ({ error }) => html`<p class="error" role="alert"><${Shown} text=${error} /></p>`;
const Link = ({ to, children, ...rest }) => html`<a href=${address(to)} ...${rest}>${children}</a>`;

// -- runs ---------------------------------------------------------------------------------------------------------------

const COLUMNS = ["name", "method", "status", "evals", "alarms", "seconds", "seed", "created"];
const cellOf = {
  evals: (run) => run.evals.map((e) => `${e.name} ${fixed(e.value)}`).join(", "),
  alarms: (run) => run.alarms.map((a) => a.title).join("; "),
  seconds: (run) => duration(run.seconds),
  created: (run) => String(run.created ?? "").slice(0, 16).replace("T", " "),
};
const told = (run, column) => (cellOf[column] ? cellOf[column](run) : String(run[column] ?? ""));
// `method:grpo status:done word`
function fits(run, filter) {
  return filter.toLowerCase().split(/\s+/).filter(Boolean).every((word) => {
    const [column, wanted] = word.includes(":") ? word.split(":") : [null, word];
    const among = column && COLUMNS.includes(column) ? [column] : COLUMNS.concat("folder");
    return among.some((name) => told(run, name).toLowerCase().includes(wanted));
  });
}
function Runs({ tick }) {
  const { value, error } = useAsk("runs", {}, tick);
  const filter = state.now.filter ?? "", sort = state.now.sort ?? "";
  if (error) return html`<${Failed} error=${error} />`;
  if (!value) return html`<p class="dim">reading…</p>`;
  const raw = (run) => (cellOf[sort] ? (sort === "evals" ? run.evals[0]?.value ?? -1 : run[sort]) : run[sort]) ?? "";
  const runs = value.runs.filter((run) => fits(run, filter));
  if (sort) runs.sort((a, b) => (raw(a) < raw(b) ? 1 : raw(a) > raw(b) ? -1 : 0));
  return html`<${Head} title=${value.root} />
    <main><label>filter <input id="filter" value=${filter} placeholder="method:grpo status:done" onInput=${(e) => go({ filter: e.target.value }, true)} /></label>
    <span class="dim"> ${runs.length} of ${value.runs.length} runs</span>
    <div class="scroll"><table><thead><tr>${COLUMNS.map((column) => html`<th><button onClick=${() => go({ sort: column })} aria-pressed=${sort === column}>${column}${sort === column ? " ↓" : ""}</button></th>`)}</tr></thead>
    <tbody>${runs.map((run) => html`<tr key=${run.id}>${COLUMNS.map((column) => html`<td class=${column === "alarms" ? "stop" : ""}>
      ${column === "name" ? html`<${Link} to=${{ page: run.kind, id: run.id }}><${Shown} text=${run.name ?? run.folder} /></${Link}> <span class="dim mono"><${Shown} text=${run.folder} /></span>` : html`<${Shown} text=${told(run, column)} />`}</td>`)}</tr>`)}</tbody></table></div>
    ${value.runs.length === 0 && html`<p>No run lies in this folder. <code>align run recipes/quickstart.yaml</code> makes one.</p>`}</main>`;
}

function Head({ title, children }) {
  return html`<header><h1><${Shown} text=${title ?? ""} /></h1>${children}
    <nav>${!answers && html`<${Link} to=${{ page: "runs" }}>all runs</${Link}>`}<button onClick=${help} aria-label="keys">?</button></nav></header>`;
}

// -- a run -------------------------------------------------------------------------------------------------------------

function RunPage({ tick }) {
  const id = state.now.id ?? ".";
  const { value: run, error } = useAsk("run", { id }, tick);
  // what takes long is asked when the rest is there
  const [ready, setReady] = useState(false);
  const { value: reports } = useAsk("checks", ready ? { id } : null, tick);
  if (error) return html`<${Head} title=${id} /><main><${Failed} error=${error} /></main>`;
  if (!run) return html`<p class="dim">reading…</p>`;
  const stages = run.stages;
  const stage = stages.find((each) => each.label === state.now.stage) ?? stages[stages.length - 1];
  state.stage = stage?.id; state.stages = stages;
  state.rows = (reports ?? []).filter((r) => r.id === stage?.id).flatMap((r) => r.findings.flatMap((f) => f.rows));
  const tab = state.now.tab ?? "run";
  return html`<${Head} title=${run.name ?? run.folder}>
      <span class="mono dim"><${Shown} text=${run.folder} /></span>
      <span class=${["failed", "died", "stalled"].includes(run.status) ? "stop" : "dim"}>${run.status === "running" ? "● " : ""}<${Shown} text=${run.status} /> ${duration(run.seconds)}</span>
      <span class="dim">seed <${Shown} text=${run.seed ?? "–"} /></span></${Head}>
    <main><div class="tabs" role="group" aria-label="views">${["run", "settings", "recipe", "log"].map((name) => html`<button aria-pressed=${tab === name} onClick=${() => go({ tab: name })}>${name}</button>`)}</div>
    ${run.error && html`<p class="error"><${Shown} text=${run.error} /></p>`}
    ${!stage ? html`<p>No stage of this run has begun.</p>` : tab === "settings" ? html`<${Settings} stage=${stage} tick=${tick} />`
      : tab === "recipe" ? html`<${Differences} run=${run} stage=${stage} /><h2>changes to what it extends</h2><${Text} text=${run.diff || "none"} label="changes" /><h2>resolved recipe</h2><${Text} text=${run.recipe} label="recipe" />`
      : tab === "log" ? html`<${Text} text=${run.log || "empty"} label="log" />` : html`<${Main} run=${run} stage=${stage} reports=${reports} tick=${tick} ready=${ready} setReady=${setReady} />`}</main>`;
}
function Main({ run, stage, reports, tick, ready, setReady }) {
  const { value: read, error } = useAsk("stage", { id: stage.id }, tick);
  const { value: says } = useAsk("says", ready ? { id: state.now.id ?? "." } : null, tick);
  const wide = state.now.wide === "1";
  const steps = read ? [...new Set(read.heat.map(([step]) => step))] : [];
  state.steps = steps;
  useEffect(() => { if (read && !steps.length) setReady(true); }, [read]);
  const step = state.now.step !== undefined ? number("step") : steps[steps.length - 1];
  return html`<div class=${`columns ${wide ? "wide" : ""}`}><section>
      <div class="strip" role="group" aria-label="stages">${run.stages.map((each) => html`<button class=${each.id === stage.id ? "on" : ""} aria-pressed=${each.id === stage.id}
        onClick=${() => go({ page: "run", id: state.now.id, stage: each.label })}><${Shown} text=${each.label} /><br /><span class="dim">${each.method}</span></button>`)}
        ${(read?.evals ?? []).map((e) => html`<div><span class="dim"><${Shown} text=${e.name} />, step ${e.step}</span><br /><span class="big">${fixed(e.value)}</span> <span class="dim mono">${fixed(e.low)}–${fixed(e.high)}</span><br /><span class="dim">${e.metric}, ${e.n} questions</span></div>`)}</div>
      ${(says ?? []).map((text) => html`<p class="says"><${Shown} text=${text} /></p>`)}
      <${Findings} reports=${reports} />
      ${error && html`<${Failed} error=${error} />`}
      ${read && html`<h2>curves${step !== undefined ? `, values at step ${step}` : ""}</h2><${Charts} read=${read} step=${step} />
        ${steps.length > 0 && html`<h2>every group of every step</h2><p class="dim">A column is a step, a cell a group, from <span class="mono">all right</span> to <span class="mono">all wrong</span>; a frame where all rewards are equal: no gradient. Blue right, orange wrong.</p><${Heat} heat=${read.heat} step=${step} />`}
        <${Evals} read=${read} stages=${run.stages} />
        ${read.unread.map((text) => html`<p class="look">not read: <${Shown} text=${text} /></p>`)}`}
    </section>${steps.length > 0 && html`<${Side} stage=${stage} step=${step} tick=${tick} setReady=${setReady} />`}</div>`;
}
function Findings({ reports }) {
  if (!reports) return html`<p class="dim">checking…</p>`;
  const found = reports.flatMap((report) => report.findings);
  const passed = reports.reduce((sum, report) => sum + report.passed.length, 0);
  const unchecked = reports.flatMap((report) => Object.entries(report.unchecked).map(([name, needs]) => `${report.stage}: ${name} needs ${needs}`));
  return html`<h2>checks</h2><ul class="findings">${found.map((f) => html`<li><b class=${f.level}>${f.level}</b> <span class="dim"><${Shown} text=${f.stage} /></span> <b><${Shown} text=${f.title} /></b><br />
      <${Shown} text=${f.evidence} /><br /><span class="dim">to do: <${Shown} text=${f.cure} /></span>
      ${f.rows.length > 0 && html`<br /><span class="dim">rows: ${f.rows.map((row) => html`<button class="mono" onClick=${() => toRow(row)}><${Shown} text=${row} /></button> `)}</span>`}</li>`)}
    <li><details><summary>${passed} passed, ${unchecked.length} not checked</summary>${unchecked.map((text) => html`<div class="dim"><${Shown} text=${text} /></div>`)}</details></li></ul>`;
}
// `rollouts/step-000012.jsonl:34`
async function toRow(place) {
  const [file, line] = place.split(":");
  const step = Number((file.match(/\d+/) ?? [])[0]);
  if (!Number.isFinite(step)) return;
  const groups = await ask("step", { id: state.stage, step });
  let left = Number(line) - 1;
  for (const group of groups) {
    if (left < group.rows.length) { go({ step, group: group.group, sample: left }); return; }
    left -= group.rows.length;
  }
  go({ step });
}

function Charts({ read, step }) {
  const names = Object.keys(read.metrics);
  const usual = CHARTS.filter((name) => names.includes(name)).slice(0, 6);
  const more = (state.now.more ?? "").split(",").filter((name) => names.includes(name));
  const others = names.filter((name) => !usual.includes(name) && !more.includes(name));
  return html`<div class="charts">${[...usual, ...more].map((name) => html`<${Chart} key=${name} name=${name} series=${read.metrics[name]} step=${step} />`)}</div>
    ${others.length > 0 && html`<label>more: <select value="" onChange=${(e) => go({ more: [...more, e.target.value].join(",") })}><option value="">choose a metric</option>${others.map((name) => html`<option value=${name}><${Plain} text=${name} /></option>`)}</select></label>`}`;
}
const Plain = ({ text }) => String(text);
function Chart({ name, series, step }) {
  const at = useRef(), plot = useRef(), mark = useRef(step);
  const [steps, raw] = series;
  const values = raw.map((value) => (typeof value === "number" ? value : null));
  mark.current = step;
  const place = steps.indexOf(step);
  const last = place >= 0 ? values[place] : values[values.length - 1];
  useEffect(() => {
    const node = at.current, ink = getComputedStyle(document.body);
    const colour = (variable) => ink.getPropertyValue(variable).trim();
    let smooth = null;
    const line = values.map((value) => { if (value === null) return null; smooth = smooth === null ? value : 0.8 * smooth + 0.2 * value; return smooth; });
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "10px system-ui", size: 34 };
    plot.current = new uPlot({
      width: node.clientWidth || 240, height: 120, legend: { show: false },
      scales: { x: { time: false }, y: { range: (_, low, high) => (high - low < 1e-9 * Math.max(1, Math.abs(high)) ? [low - 0.5, high + 0.5] : [low - 0.05 * (high - low), high + 0.05 * (high - low)]) } },
      axes: [{ ...axis, size: 22 }, axis], cursor: { sync: { key: "steps" }, drag: { x: false, y: false } },
      series: [{}, { stroke: colour("--accent"), width: 0, points: { show: true, size: 3, fill: colour("--accent") }, paths: () => null }, { stroke: colour("--accent"), width: 2, points: { show: values.length < 3 }, spanGaps: true }],
      hooks: { draw: [(u) => { if (mark.current === undefined) return; const x = u.valToPos(mark.current, "x", true); u.ctx.fillStyle = colour("--wrong"); u.ctx.fillRect(x, u.bbox.top, 2, u.bbox.height); }] },
    }, [steps, values, line], node);
    plot.current.over.addEventListener("click", () => { const index = plot.current.cursor.idx; if (index !== null && index !== undefined) go({ step: nearest(steps[index]), group: 0, sample: 0 }); });
    const watch = new ResizeObserver(() => plot.current.setSize({ width: node.clientWidth || 240, height: 120 }));
    watch.observe(node);
    return () => { watch.disconnect(); plot.current.destroy(); };
  }, [JSON.stringify([name, steps.length, values[values.length - 1]])]);
  useEffect(() => { plot.current?.redraw(false); }, [step]);
  const known = values.filter((value) => value !== null);
  return html`<figure><figcaption><span class="mono"><${Shown} text=${name} /></span><b class="mono">${digits(last)}</b></figcaption>
    <div ref=${at} role="img" aria-label=${`${name}: ${known.length} values, first ${digits(known[0])}, last ${digits(known[known.length - 1])}`}></div></figure>`;
}
const nearest = (step) => (state.steps?.length ? state.steps.reduce((best, each) => (Math.abs(each - step) < Math.abs(best - step) ? each : best)) : step);

function columnsOf(heat, room) {
  const byStep = new Map();
  for (const [step, group, mean, equal] of heat) { if (!byStep.has(step)) byStep.set(step, []); byStep.get(step).push({ step, group, mean, equal }); }
  let columns = [...byStep.values()].map((cells) => cells.sort((a, b) => (b.mean ?? -1) - (a.mean ?? -1)));
  const every = Math.ceil(columns.length / room); // so many steps share a column
  if (every > 1) columns = columns.filter((_, place) => place % every === 0);
  return { columns, every };
}
function Heat({ heat, step }) {
  const at = useRef(), drawn = useRef();
  const [width, setWidth] = useState(800);
  useEffect(() => { const node = at.current; const watch = new ResizeObserver(() => setWidth(node.clientWidth || 800)); watch.observe(node); return () => watch.disconnect(); }, []);
  useEffect(() => {
    const { columns, every } = columnsOf(heat, Math.floor(width / 3));
    const rows = Math.min(64, Math.max(...columns.map((cells) => cells.length)));
    const w = width / columns.length, h = Math.max(2, Math.min(12, 160 / rows));
    const canvas = at.current, scale = window.devicePixelRatio || 1;
    canvas.width = width * scale; canvas.height = rows * h * scale; canvas.style.height = `${rows * h}px`;
    const pen = canvas.getContext("2d"), ink = getComputedStyle(document.body);
    const parse = (variable) => ink.getPropertyValue(variable).trim().match(/\w\w/g).map((part) => parseInt(part, 16));
    const high = parse("--right"), low = parse("--wrong"), edge = ink.getPropertyValue("--select").trim();
    const means = heat.map(([, , mean]) => mean).filter((mean) => mean !== null);
    // rewards from 0 to 1 keep their place, so that nothing but wrong responses is no blue map
    const least = Math.min(0, ...means), most = Math.max(1, ...means);
    pen.scale(scale, scale);
    columns.forEach((cells, x) => {
      for (let y = 0; y < rows; y += 1) {
        const cell = cells[Math.floor((y * cells.length) / rows)];
        const share = cell.mean === null ? 0 : (cell.mean - least) / (most - least);
        pen.fillStyle = `rgb(${high.map((part, place) => Math.round(share * part + (1 - share) * low[place])).join(",")})`;
        pen.fillRect(x * w, y * h, Math.max(1, w - (w > 4 ? 1 : 0)), h - (h > 4 ? 1 : 0));
        if (cell.equal && w > 4 && h > 4) { pen.strokeStyle = edge; pen.strokeRect(x * w + 1, y * h + 1, w - 3, h - 3); }
      }
      if (step !== undefined && Math.abs(cells[0].step - step) * 2 < every + 0.5) { pen.strokeStyle = edge; pen.lineWidth = 2; pen.strokeRect(x * w - 1, 1, w + 1, rows * h - 2); pen.lineWidth = 1; }
    });
    drawn.current = { columns, w, h, rows };
  }, [heat, width, step]);
  const click = (event) => {
    const { columns, w, h, rows } = drawn.current, box = at.current.getBoundingClientRect();
    const cells = columns[Math.floor((event.clientX - box.left) / w)], y = Math.floor((event.clientY - box.top) / h);
    const cell = cells?.[Math.floor((y * cells.length) / rows)];
    if (cell) go({ step: cell.step, group: cell.group, sample: 0 });
  };
  const equal = heat.filter(([, , , same]) => same).length;
  return html`<canvas ref=${at} class="heat" onClick=${click} role="img" aria-label=${`${heat.length} groups of ${new Set(heat.map(([each]) => each)).size} steps; in ${equal} all rewards are equal`}></canvas>`;
}

const kind = (row) => (row.status === "ok" ? "ok" : ["wrong", "unparsed"].includes(row.status) ? "" : "other");
function Side({ stage, step: wanted, tick, setReady }) {
  const { value: groups, error, asked } = useAsk("step", { id: stage.id, step: wanted }, tick);
  useEffect(() => { if (groups || error) setReady(true); }, [groups, error]);
  useEffect(() => {
    if (!groups || answers) return undefined;
    const pause = setTimeout(() => [-1, 1].forEach((by) => ask("step", { id: stage.id, step: shift(state.steps, by) }).catch(() => {})), 100);
    return () => clearTimeout(pause);
  }, [groups]);
  const step = asked?.step; // what is shown is of this step, until the next one is there
  if (error) return html`<aside class="side"><${Failed} error=${error} /></aside>`;
  if (!groups) return html`<aside class="side dim">reading…</aside>`;
  const here = groups.find((each) => each.group === number("group", groups[0]?.group)) ?? groups[0];
  if (!here) return html`<aside class="side">Step ${step} has no rollouts.</aside>`;
  const sample = Math.min(number("sample"), here.rows.length - 1), row = here.rows[sample];
  state.groups = groups; state.here = here; state.sample = sample; state.step = step;
  const equal = (rows) => rows.every((each) => each.reward === rows[0].reward);
  const same = new Map();
  for (const each of here.rows) { const key = each.response; same.set(key, { count: (same.get(key)?.count ?? 0) + 1, row: each }); }
  const raw = state.now.raw === "1", math = state.now.math === "1";
  return html`<aside class="side" aria-label="rollouts"><h2>step ${step}: ${groups.length} groups</h2>
    ${groups.map((group) => html`<div class=${`group-row ${equal(group.rows) ? "equal" : ""}`} key=${group.group}><span class="question mono" title=${clean(group.question)}><${Shown} text=${short(group.question)} /></span>
      <span class="cells">${group.rows.map((each, place) => html`<button class=${`cell ${kind(each)} ${group === here && place === sample ? "chosen" : ""}`} aria-pressed=${group === here && place === sample}
        aria-label=${`group ${group.group}, response ${place}: reward ${digits(each.reward)}, ${each.status}, ${each.tokens ?? "?"} tokens`} onClick=${() => go({ step, group: group.group, sample: place })}>${each.tokens ?? "·"}</button>`)}</span></div>`)}
    <p class="dim">colour: right or wrong; number: tokens; underlined: all rewards equal</p>
    <h2>group ${here.group}, response ${sample}</h2>
    <${Text} text=${asText(row.prompt)} raw=${raw} math=${math} label="prompt" /><${Text} text=${row.response} raw=${raw} math=${math} label="response" />
    <dl><dt>truth</dt><dd class="mono"><${Shown} text=${asText(row.truth)} /></dd>
      <dt>verdict</dt><dd><${Shown} text=${[row.status, row.stage && `at stage ${row.stage}`, row.explanation].filter(Boolean).join(", ")} /></dd>
      <dt>reward</dt><dd class="mono">${digits(row.reward)}${row.advantage !== null && html`, advantage ${digits(row.advantage)}`}</dd>
      ${Object.entries(row.rewards ?? {}).length > 1 && Object.entries(row.rewards).map(([name, said]) => html`<dt><${Shown} text=${name} /></dt><dd class="mono">${digits(said.reward)} <${Shown} text=${said.explanation ?? ""} /></dd>`)}
      <dt>length</dt><dd>${row.tokens ?? "?"} tokens, ${row.finish_reason === "length" ? "cut at max_new_tokens" : "ended by itself"}</dd>
      ${row.mean_entropy !== null && html`<dt>entropy</dt><dd class="mono">${digits(row.mean_entropy)} nats a token</dd>`}</dl>
    <p><${Link} to=${{ page: "question", id: state.now.id, stage: stage.label, run: stage.id, text: here.question }}>this question across the steps</${Link}></p>
    <h2>${same.size} different responses</h2>
    <table><tbody>${[...same.values()].sort((a, b) => b.count - a.count).map(({ count, row: one }) => html`<tr><td>${count}×</td><td class="mono"><${Shown} text=${short(one.response, 160)} marks /></td></tr>`)}</tbody></table></aside>`;
}
const asText = (value) => (typeof value === "string" ? value : Array.isArray(value) ? value.map((m) => (m && m.role ? `${m.role}: ${m.content}` : JSON.stringify(m))).join("\n") : JSON.stringify(value ?? null));
const short = (text, room = 60) => { const line = String(text).slice(0, room * 4).replace(/\s+/g, " "); return line.length > room ? `${line.slice(0, room - 1)}…` : line; };
const clean = (text) => String(text).slice(0, 1000).replace(new RegExp(HIDDEN, "g"), "\ufffd");

// -- questions, evals, settings, sweeps ---------------------------------------------------------------------------------

function QuestionPage() {
  const text = state.now.text ?? "";
  const { value, error } = useAsk("question", { id: state.now.run, text });
  return html`<${Head} title="a question across the steps"><${Link} to=${{ page: "run", id: state.now.id, stage: state.now.stage }}>back to the run</${Link}></${Head}>
    <main><form onSubmit=${(e) => { e.preventDefault(); go({ text: e.target.elements[0].value }); }}><label>question <input id="search" value=${text} size="40" /></label> <button>search</button></form>
    ${error && html`<${Failed} error=${error} />`}
    ${value && html`<p class="dim">${value.length} groups ask it</p><div class="scroll"><table><thead><tr><th>step</th><th>right</th><th>commonest answers</th><th>question</th></tr></thead><tbody>
      ${value.map((each) => html`<tr><td><${Link} to=${{ page: "run", id: state.now.id, stage: state.now.stage, step: each.step, group: each.group, sample: 0 }}>${each.step}</${Link}></td><td class="mono">${each.right}/${each.rows}</td>
        <td class="mono">${each.answers.map(([answer, count]) => html`<${Shown} text=${short(answer, 24)} /> ×${count}  `)}</td><td class="mono"><${Shown} text=${short(each.question, 90)} /></td></tr>`)}</tbody></table></div>`}</main>`;
}
function Evals({ read, stages }) {
  if (!read.evals.length) return null;
  return html`<h2>evals</h2><table><tbody>${read.evals.map((e, place) => {
    const name = `${e.name}@${e.step}`, before = read.evals.slice(0, place).reverse().find((each) => each.name === e.name);
    const earlier = stages[stages.findIndex((each) => each.id === read.id) - 1];
    const base = before ? { base: read.id, base_name: `${before.name}@${before.step}` } : earlier ? { base: earlier.id, base_name: e.name } : null;
    return html`<tr><td><${Link} to=${{ page: "eval", id: state.now.id, run: read.id, name }}><${Shown} text=${name} /></${Link}></td><td class="mono">${fixed(e.value)}</td>
      <td>${base && html`<${Link} class="compare" to=${{ page: "eval", id: state.now.id, run: read.id, name, ...base }}>against ${before ? `step ${before.step}` : earlier.label}</${Link}>`}</td></tr>`;
  })}</tbody></table>`;
}
function EvalPage() {
  const { run, name, base, base_name: other } = state.now;
  const compared = useAsk("versus", base !== undefined ? { id: run, name, base, base_name: other } : null);
  const alone = useAsk("eval", base === undefined ? { id: run, name } : null);
  const error = compared.error ?? alone.error;
  const side = state.now.side ?? "fixed";
  return html`<${Head} title=${`eval ${name}`}><${Link} to=${{ page: "run", id: state.now.id }}>back to the run</${Link}></${Head}><main>
    ${error && html`<${Failed} error=${error} />`}
    ${compared.value && base !== undefined && html`<p class="says"><${Shown} text=${compared.value.says} /></p><${Traits} traits=${compared.value.traits} /><h2>questions</h2>
      <div class="tabs" role="group" aria-label="questions">${Object.entries(compared.value.counts).map(([each, count]) => html`<button aria-pressed=${side === each} onClick=${() => go({ side: each })}>${each} <span class="dim">${count}</span></button>`)}</div>
      <div class="scroll"><table><thead><tr><th>question</th><th>truth</th><th>before</th><th>after</th></tr></thead><tbody>${(compared.value.pairs[side] ?? []).map((pair) => html`<tr>
        <td class="mono"><${Shown} text=${short(pair.question, 200)} /></td><td class="mono"><${Shown} text=${short(asText(pair.truth), 60)} /></td><${Changed} before=${pair.before} after=${pair.after} /></tr>`)}</tbody></table></div>`}
    ${alone.value && base === undefined && html`<p class="says">${alone.value.metric} ${fixed(alone.value.value)} <span class="dim">(95 % ${fixed(alone.value.low)} to ${fixed(alone.value.high)}, ${alone.value.n} questions)</span></p>
      <div class="tabs" role="group" aria-label="rows">${["all", "right", "wrong"].map((each) => html`<button aria-pressed=${(state.now.rows ?? "all") === each} onClick=${() => go({ rows: each })}>${each}</button>`)}</div>
      <div class="scroll"><table><thead><tr><th>question</th><th>truth</th><th>status</th><th>response</th></tr></thead><tbody>${alone.value.samples.filter((row) => (state.now.rows ?? "all") === "all" || (row.status === "ok") === (state.now.rows === "right")).map((row) => html`<tr>
        <td class="mono"><${Shown} text=${short(row.metadata?.question ?? row.id, 120)} /></td><td class="mono"><${Shown} text=${short(asText(row.truth))} /></td><td><${Shown} text=${row.status} /></td><td class="mono"><${Shown} text=${short(row.response, 400)} marks /></td></tr>`)}</tbody></table></div>`}</main>`;
}
// Words of one side that the other lacks stand out.
function Changed({ before, after }) {
  const words = (text) => short(text, 400).split(/(\s+)/);
  const has = [new Set(words(before)), new Set(words(after))];
  const cell = (text, others) => html`<td class="mono">${words(text).map((word) => (others.has(word) ? html`<${Shown} text=${word} />` : html`<mark><${Shown} text=${word} /></mark>`))}</td>`;
  return [cell(before, has[1]), cell(after, has[0])];
}
function Settings({ stage, tick }) {
  const { value, error } = useAsk("stage", { id: stage.id }, tick);
  if (error) return html`<${Failed} error=${error} />`;
  if (!value) return html`<p class="dim">reading…</p>`;
  const names = [...new Set([...Object.keys(value.requested), ...Object.keys(value.effective)])].sort();
  return html`<h2>requested and in force</h2><div class="scroll"><table><thead><tr><th>setting</th><th>requested</th><th>in force</th></tr></thead><tbody>${names.map((name) => html`<tr><td class="mono"><${Shown} text=${name} /></td>
      <td class="mono"><${Shown} text=${name in value.requested ? asText(value.requested[name]) : ""} /></td><td class="mono"><${Shown} text=${name in value.effective ? asText(value.effective[name]) : "unproven"} /></td></tr>`)}</tbody></table></div>
    <h2>proofs</h2><div class="scroll"><table><thead><tr><th>claim</th><th>outcome</th><th>measured</th><th>allowed</th><th></th></tr></thead><tbody>${value.proofs.map((proof) => html`<tr><td><${Shown} text=${proof.says} /></td><td class=${proof.outcome === "failed" ? "stop" : ""}>${proof.outcome}</td>
      <td class="mono">${proof.value === null ? "" : `${digits(proof.value)} ${proof.unit}`}</td><td class="mono">${proof.tolerance === null ? "" : digits(proof.tolerance)}</td><td><${Shown} text=${[proof.fault, proof.why, proof.note].filter(Boolean).join("; ")} /></td></tr>`)}</tbody></table></div>`;
}
// The recipe of a stage against that of another run's stage of the same name, else its last.
function Differences({ run, stage }) {
  const { value: all } = useAsk("runs", {});
  const chosen = state.now.other ?? "";
  const { value: other } = useAsk("run", chosen && !answers ? { id: chosen } : null);
  const there = other && (other.stages.find((each) => each.label === stage.label) ?? other.stages[other.stages.length - 1]);
  const { value, error } = useAsk("differences", there ? { id: stage.id, other: there.id } : null);
  if (answers) return null;
  const others = (all?.runs ?? []).filter((each) => each.id !== run.id && each.kind === "run");
  return html`<h2>against another run</h2><label>run <select id="other" value=${chosen} onChange=${(e) => go({ other: e.target.value })}><option value="">choose a run</option>${others.map((each) => html`<option value=${each.id}><${Plain} text=${clean(`${each.name ?? ""} ${each.folder}`)} /></option>`)}</select></label>
    ${error && html`<${Failed} error=${error} />`}
    ${chosen && value && (value.length === 0 ? html`<p>The recipes are the same.</p>` : html`<div class="scroll"><table class="differences"><thead><tr><th>setting</th><th>here</th><th>there</th></tr></thead><tbody>${value.map((each) => html`<tr><td class="mono"><${Shown} text=${each.key} /></td>
      <td class="mono"><${Shown} text=${each.here === null ? "–" : asText(each.here)} /></td><td class="mono"><${Shown} text=${each.there === null ? "–" : asText(each.there)} /></td></tr>`)}</tbody></table></div>`)}`;
}
function Traits({ traits }) {
  const told = (name, value) => (name.startsWith("tokens") ? digits(value) : `${(100 * value).toFixed(0)} %`);
  return html`<h2>what the responses are like</h2><div class="scroll"><table class="traits"><thead><tr><th></th><th>before</th><th>after</th></tr></thead><tbody>${traits.map(([name, before, after]) => html`<tr><td><${Shown} text=${name} /></td>
    <td class="mono">${told(name, before)}</td><td class="mono">${told(name, after)}</td></tr>`)}</tbody></table></div>`;
}
function SweepPage({ tick }) {
  const id = state.now.id ?? ".";
  const { value, error } = useAsk("sweep", { id }, tick);
  const { value: reports } = useAsk("checks", value ? { id } : null, tick);
  if (error) return html`<${Head} title=${id} /><main><${Failed} error=${error} /></main>`;
  if (!value) return html`<p class="dim">reading…</p>`;
  const alarms = (run) => (reports ?? []).filter((r) => r.id === run || r.id.startsWith(`${run}/`)).flatMap((r) => r.findings).filter((f) => f.level !== "note");
  return html`<${Head} title=${`sweep ${value.name ?? id}`} /><main>${value.compare ? html`<${Compared} compare=${value.compare} />` : html`<p>Not compared yet: <code>align compare</code> on this folder.</p>`}
    <h2>runs</h2><div class="scroll"><table><thead><tr><th>variant</th><th>seed</th><th>status</th><th>alarms</th></tr></thead><tbody>${value.jobs.map((job) => html`<tr><td><${Link} to=${{ page: "run", id: job.id }}><${Shown} text=${job.variant} /></${Link}></td><td>${job.seed}</td>
      <td><${Shown} text=${[job.status, job.note].filter(Boolean).join(": ")} /></td><td>${alarms(job.id).map((f) => html`<div class=${f.level}>${f.level}: <${Shown} text=${f.title} /></div><div class="dim">to do: <${Shown} text=${f.cure} /></div>`)}</td></tr>`)}</tbody></table></div></main>`;
}
function Compared({ compare }) {
  return html`${compare.forced.map((text) => html`<p class="error">measured differently: <${Shown} text=${text} /></p>`)}${compare.metrics.map((metric) => {
    const rows = compare.rows.map((row) => ({ row, result: row.results[metric] })).filter(({ result }) => typeof result?.value === "number");
    const bounds = rows.flatMap(({ result }) => [result.value, ...Object.values(result.by_seed), ...(result.interval ? [result.interval.low, result.interval.high] : [])]);
    const low = Math.min(...bounds), high = Math.max(...bounds);
    const at = (value) => `${high > low ? (255 * (value - low)) / (high - low) : 128}px`;
    const gap = (difference) => (difference ? `${points(difference.value)}${difference.interval ? ` (${points(difference.interval.low)} to ${points(difference.interval.high)})` : ""}` : "");
    return html`<h2><${Shown} text=${metric} /></h2><div class="scroll"><table><thead><tr><th>variant</th><th>value</th><th>each seed, and the interval</th><th>difference, points</th><th>verdict</th></tr></thead><tbody>${rows.map(({ row, result }) => html`<tr><td><${Shown} text=${row.label} />${row.base ? " (base)" : ""}</td>
      <td class="mono">${fixed(result.value)}</td><td><div class="track">${result.interval && html`<i style=${{ left: at(result.interval.low), width: `calc(${at(result.interval.high)} - ${at(result.interval.low)})` }}></i>`}${Object.values(result.by_seed).map((value) => html`<b style=${{ left: at(value) }}></b>`)}</div></td>
      <td class="mono">${gap(result.difference)}</td><td><${Shown} text=${result.verdict} /></td></tr>`)}</tbody></table></div>`;
  })}${compare.notes.map((text) => html`<p class="dim"><${Shown} text=${text} /></p>`)}`;
}

// -- keys -------------------------------------------------------------------------------------------------------------------

function help() {
  const open = document.querySelector("dialog");
  if (open) { open.close(); return; }
  const dialog = document.createElement("dialog");
  document.body.append(dialog);
  dialog.setAttribute("aria-label", "keys");
  render(html`<h2>keys</h2><table><tbody>${KEYS.map(([key, what]) => html`<tr><td><kbd>${key}</kbd></td><td>${what}</td></tr>`)}</tbody></table><button autofocus onClick=${() => dialog.close()}>close</button>`, dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
}
async function jump(wanted) {
  const place = { id: state.stage, step: state.step, group: state.here.group, sample: state.sample };
  let next = null;
  if (!answers) next = await ask("next", { ...place, wanted });
  else next = await among(wanted);
  if (next) go({ step: next[0], group: next[1], sample: next[2] });
}
async function among(wanted) {
  for (const step of state.steps.filter((each) => each >= state.step)) {
    const groups = await ask("step", { id: state.stage, step }).catch(() => []);
    for (const group of groups) {
      const later = step > state.step || group.group > state.here.group;
      if (wanted === "dead" && later && group.rows.every((row) => row.reward === group.rows[0].reward)) return [step, group.group, 0];
      if (wanted !== "dead") {
        const from = later ? 0 : group.group === state.here.group ? state.sample + 1 : Infinity;
        const place = group.rows.findIndex((row, index) => index >= from && row.status !== "ok");
        if (place >= 0) return [step, group.group, place];
      }
    }
  }
  return null;
}
function shift(steps, by) {
  const place = steps.indexOf(state.step);
  return steps[Math.max(0, Math.min(steps.length - 1, place + by))];
}
function inGroups(by) {
  const groups = state.groups, place = groups.indexOf(state.here);
  return groups[(place + by + groups.length) % groups.length].group;
}
let finding = -1;
const rollouts = {
  ArrowRight: () => go({ step: shift(state.steps, 1), sample: 0 }),
  ArrowLeft: () => go({ step: shift(state.steps, -1), sample: 0 }),
  j: () => go({ group: inGroups(1), sample: 0 }),
  k: () => go({ group: inGroups(-1), sample: 0 }),
  l: () => go({ sample: (state.sample + 1) % state.here.rows.length }),
  h: () => go({ sample: (state.sample + state.here.rows.length - 1) % state.here.rows.length }),
  w: () => jump("wrong"),
  d: () => jump("dead"),
  Enter: () => go({ wide: state.now.wide === "1" ? "" : "1" }),
  m: () => go({ math: state.now.math === "1" ? "" : "1" }),
  r: () => go({ raw: state.now.raw === "1" ? "" : "1" }),
  q: () => go({ page: "question", id: state.now.id, stage: state.now.stage, run: state.stage, text: state.here.question }),
};
// In tables of runs the keys of groups go from link to link; Enter follows one.
function along(by) {
  const links = [...document.querySelectorAll("tbody a")], place = links.indexOf(document.activeElement);
  links[place < 0 ? (by > 0 ? 0 : links.length - 1) : (place + by + links.length) % links.length]?.focus();
}
const tables = { j: () => along(1), k: () => along(-1) };
const anywhere = {
  "?": help,
  g: () => !answers && go({ page: "runs" }),
  y: () => navigator.clipboard?.writeText(location.href),
  f: () => document.getElementById("filter")?.focus(),
  c: () => [...document.querySelectorAll("a.compare")].pop()?.click(),
  "/": () => { const field = document.getElementById("search"); if (field) field.focus(); else if (state.stage) go({ page: "question", id: state.now.id, stage: state.now.stage, run: state.stage, text: "" }); },
  n: () => { if (state.rows?.length) { finding = (finding + 1) % state.rows.length; toRow(state.rows[finding]); } },
  p: () => { if (state.rows?.length) { finding = (finding - 1 + state.rows.length) % state.rows.length; toRow(state.rows[finding]); } },
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "Enter" && event.target !== document.body) return; // a button or link takes it
  const onRun = state.now.page === "run" && state.here && (state.now.tab ?? "run") === "run";
  const action = anywhere[event.key] ?? (onRun ? rollouts : tables)[event.key];
  if (action && !document.querySelector("dialog")) { event.preventDefault(); action(); } else if (action === help) help();
});

// -- the page ---------------------------------------------------------------------------------------------------------------

const PAGES = { runs: Runs, run: RunPage, question: QuestionPage, eval: EvalPage, sweep: SweepPage };
let tick = 0;
function draw() {
  const page = answers && state.now.page === "runs" ? (answers["run?id=."].kind === "sweep" ? "sweep" : "run") : state.now.page;
  if (answers && state.now.page === "runs") state.now = { page, id: "." };
  document.title = `${state.now.id ?? "runs"} – alignkit`;
  render(html`<${PAGES[page] ?? Runs} tick=${tick} />`, document.getElementById("app"));
}
// A run that goes on is followed: its files are asked for, and read again when they grew.
let stamp = "";
async function follow() {
  if (document.hidden || !["run", "sweep"].includes(state.now.page)) return;
  const now = JSON.stringify(await ask("stamp", { id: state.now.id ?? "." }).catch(() => ""));
  if (stamp && now !== stamp) { tick += 1; kept.clear(); draw(); }
  stamp = now;
}
if (!answers) setInterval(follow, 2000);
addEventListener("hashchange", () => { state.now = readState(); stamp = ""; draw(); });
addEventListener("popstate", () => { state.now = readState(); draw(); });
draw();
})();
