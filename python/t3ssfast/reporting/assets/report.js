"use strict";
// The page: cards of candidates, verdicts and what follows from them. Texts from the data are set as text only.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const { LABELS } = T3Files;
  const VERBS = { accepted: "Accept", rejected: "Reject", unsure: "Unsure" };
  const KEYS = { a: "accepted", r: "rejected", u: "unsure" };
  const CHOSEN = { random: "drawn at random", uncertain: "uncertain", disagreement: "models disagree", diverse: "diverse", added: "added" };
  const OUTCOMES = { tp: "true", fp: "false", fn: "missed" };
  // More cards at a time would make each key slow.
  const CARDS = 600;
  // Names and unfinished tomograms among the warnings; the table has all.
  const NAMES = 3, STATES = 20;
  // Width of a plot in half of a printed page, pixels.
  const PAPER = 370;
  const TOMOGRAMS = DATA.tomograms;
  const ROWS = DATA.rows.map((values, index) => {
    const row = Object.fromEntries(DATA.columns.map((name, k) => [name, values[k]]));
    row.index = index;
    row.name = TOMOGRAMS[row.t].name;
    row.kindName = DATA.kinds[row.kind];
    return row;
  });
  const isCandidate = (row) => row.outcome !== "fn";
  const CANDIDATES = ROWS.filter(isCandidate);
  const STORE = "t3ssfast:" + DATA.id;
  const anyChosen = CANDIDATES.some((row) => row.chosen && row.chosen !== "added");

  const labels = ROWS.map((row) => row.label);
  const undone = [], done = [];
  let threshold = DATA.threshold, order = [], limit = CARDS, current = -1, plot = null, curve = null;

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") element.className = value; else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }
  const percent = (share) => (share * 100).toFixed(share > 0.995 || share < 0.005 ? 1 : 0) + "%";
  const plural = (count, noun) => count.toLocaleString("en") + " " + noun + (count === 1 ? "" : "s");
  const above = (row) => !isCandidate(row) || row.score >= threshold;

  // ---- verdicts -------------------------------------------------------------------------------------------
  function restore() {
    try {
      const kept = JSON.parse(localStorage.getItem(STORE) || "{}");
      for (const [index, label] of Object.entries(kept)) {
        if (ROWS[index] && (label === "" || LABELS.includes(label))) labels[index] = label;
      }
    } catch { /* a browser that keeps nothing */ }
  }
  function keep() {
    const kept = {};
    labels.forEach((label, index) => { if (label !== ROWS[index].label) kept[index] = label; });
    try { localStorage.setItem(STORE, JSON.stringify(kept)); } catch { /* full, or not allowed */ }
  }
  function put(index, label) {
    labels[index] = label;
    keep();
    paint(index);
    summarise();
  }
  function judge(index, label) {
    if (index < 0 || !isCandidate(ROWS[index])) return;
    const before = labels[index], after = before === label ? "" : label;
    done.push([[index, before, after]]);
    undone.length = 0;
    put(index, after);
    say(title(ROWS[index]) + ": " + (after || "no verdict"));
  }
  function turnBack(from, to, side) {
    const step = from.pop();
    if (!step) return;
    to.push(step);
    for (const change of step) labels[change[0]] = change[side];
    keep();
    step.forEach(([index]) => paint(index));
    summarise();
    if (step.length === 1 && order.includes(step[0][0])) go(step[0][0]);
    say(side === 1 ? "Undone." : "Done again.");
  }
  const undo = () => turnBack(done, undone, 1);
  const redo = () => turnBack(undone, done, 2);
  const say = (text) => { $("message").textContent = text; };

  // ---- cards ----------------------------------------------------------------------------------------------
  const images = DATA.sprites.map((uri) => {
    const [head, body] = uri.split(",");
    const bytes = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
    return URL.createObjectURL(new Blob([bytes], { type: head.slice(5).split(";")[0] }));
  });
  const cards = new Array(ROWS.length);

  const title = (row) => (row.outcome === "fn" ? "Missed particle" : "Candidate " + (row.index + 1)) + " of " + row.name;
  function viewsOf(row) {
    if (row.picture < 0) return make("div", { class: "views none" }, "no picture: the tomogram was not found");
    const views = make("div", { class: "views", role: "img", "aria-label": title(row) + ": " + DATA.views.join(", ") + ". The needle points up." });
    const sprite = Math.floor(row.picture / DATA.per), line = row.picture % DATA.per;
    const lines = Math.min(DATA.per, DATA.pictures - sprite * DATA.per);
    DATA.views.forEach((name, k) => {
      const view = make("i", { title: name });
      view.style.backgroundImage = 'url("' + images[sprite] + '")';
      view.style.backgroundSize = DATA.views.length * 100 + "% " + lines * 100 + "%";
      view.style.backgroundPosition = (k * 100) / (DATA.views.length - 1) + "% " + (lines > 1 ? (line * 100) / (lines - 1) : 0) + "%";
      views.append(view);
    });
    return views;
  }
  function card(index) {
    if (cards[index]) return cards[index];
    const row = ROWS[index], missed = !isCandidate(row);
    const item = make("li", { class: "card", tabindex: "-1", "data-index": index });
    const tags = make("span", { class: "tags" });
    if (row.chosen) tags.append(make("span", { class: "tag chosen" }, CHOSEN[row.chosen] || row.chosen));
    if (row.outcome) tags.append(make("span", { class: "tag " + row.outcome }, OUTCOMES[row.outcome]));
    if (DATA.kinds.length > 1) tags.append(make("span", { class: "tag" }, row.kindName.replaceAll("_", " ")));
    const score = missed ? "missed" : row.score.toFixed(3);
    const details = [];
    if (row.cl !== null) details.push("classifier " + row.cl.toFixed(3));
    if (row.ve !== null) details.push("verifier " + row.ve.toFixed(3));
    details.push("z " + row.z.toFixed(1) + ", y " + row.y.toFixed(1) + ", x " + row.x.toFixed(1) + ", tilt " + row.tilt.toFixed(0) + "°, psi " + row.psi.toFixed(0) + "°");
    const place = (TOMOGRAMS.length > 1 ? row.name + " · " : "") + "z " + row.z.toFixed(0) + " · tilt " + row.tilt.toFixed(0) + "°";
    item.append(
      viewsOf(row),
      make("div", { class: "line", title: row.name + ": " + details.join("; ") }, make("span", { class: "score" }, score),
        make("span", { class: "where" }, place), tags),
    );
    if (!missed) {
      const buttons = LABELS.map((label) => make("button", { type: "button", value: label, tabindex: "-1", "aria-keyshortcuts": label[0].toUpperCase() }, VERBS[label]));
      item.append(make("div", { class: "verdict", role: "group", "aria-label": "Verdict on " + title(row) }, ...buttons));
    }
    cards[index] = item;
    paint(index);
    return item;
  }
  function paint(index) {
    const item = cards[index];
    if (item) {
      const label = labels[index], row = ROWS[index];
      item.dataset.label = label;
      item.setAttribute("aria-label", title(row) + ", score " + (row.score === null ? "none" : row.score.toFixed(3)) + ", " + (label || "undecided"));
      for (const button of item.querySelectorAll("button")) button.setAttribute("aria-pressed", button.value === label);
    }
    for (const mark of document.querySelectorAll('.mark[data-index="' + index + '"]')) dress(mark, index);
  }

  // ---- order ----------------------------------------------------------------------------------------------
  const SUGGESTION = ["uncertain", "disagreement", "diverse", "random"];
  const by = {
    score: (row) => [-(row.score ?? -1)],
    uncertain: (row) => [Math.abs((row.score ?? 1) - 0.5)],
    threshold: (row) => [Math.abs((row.score ?? 9) - threshold)],
    position: (row) => [row.t, row.z, row.y, row.x],
    // Not by reason: who sees which ones were drawn at random judges them differently.
    suggested: (row) => [SUGGESTION.includes(row.chosen) ? 0 : 1, row.t, row.z, row.y],
  };
  const shown = {
    all: () => true,
    open: (row) => !labels[row.index] && isCandidate(row),
    suggested: (row) => SUGGESTION.includes(row.chosen),
    tp: (row) => row.outcome === "tp",
    fp: (row) => row.outcome === "fp",
    fn: (row) => row.outcome === "fn",
  };
  for (const label of LABELS) shown[label] = (row) => labels[row.index] === label;

  function arrange() {
    const key = by[$("sort").value], show = shown[$("show").value], tomogram = $("tomogram").value, kind = $("kind").value;
    const rows = ROWS.filter((row) => above(row) && show(row) && (tomogram === "" || row.t === +tomogram) && (kind === "" || row.kind === +kind));
    const keyed = rows.map((row) => [key(row), row.index]);
    keyed.sort((a, b) => {
      for (let k = 0; k < a[0].length; k++) if (a[0][k] !== b[0][k]) return a[0][k] - b[0][k];
      return a[1] - b[1];
    });
    order = keyed.map((entry) => entry[1]);
    limit = CARDS;
    fill();
    if (!order.includes(current)) mark(order.length ? order[0] : -1);
    summarise();
  }
  function fill() {
    const items = order.slice(0, limit).map(card);
    if (!items.length) items.push(make("li", { class: "empty" }, ROWS.length ? "No candidate is shown with these settings." : "Nothing was found."));
    $("cards").replaceChildren(...items);
    $("more").hidden = order.length <= limit;
    $("more").textContent = "Show " + plural(Math.min(CARDS, order.length - limit), "more candidate");
  }
  function mark(index) {
    const before = current;
    current = index;
    for (const [one, isCurrent] of [[before, false], [index, true]]) {
      const item = cards[one];
      if (!item || (one === index && !isCurrent)) continue;
      item.setAttribute("aria-current", isCurrent);
      item.tabIndex = isCurrent ? 0 : -1;
      for (const button of item.querySelectorAll("button")) button.tabIndex = isCurrent ? 0 : -1;
      for (const circle of document.querySelectorAll('.mark[data-index="' + one + '"]')) dress(circle, one);
    }
    if (index >= 0 && +$("scene-tomogram").value !== ROWS[index].t) $("scene-tomogram").value = ROWS[index].t;
    show3d();
  }
  function go(index) {
    const place = order.indexOf(index);
    if (place < 0) return;
    if (place >= limit) {
      limit = Math.ceil((place + 1) / CARDS) * CARDS;
      fill();
    }
    mark(index);
    cards[index].focus({ preventScroll: true });
    cards[index].scrollIntoView({ block: "nearest" });
  }
  function step(by_) {
    const place = order.indexOf(current) + by_;
    if (order[place] !== undefined) go(order[place]);
  }
  function columns() {
    const items = $("cards").children;
    let count = 1;
    while (count < items.length && items[count].offsetTop === items[0].offsetTop) count++;
    return count;
  }

  // ---- figures --------------------------------------------------------------------------------------------
  function tiles(element, entries) {
    element.replaceChildren(...entries.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  }
  function summarise() {
    const judged = { accepted: 0, rejected: 0, unsure: 0 };
    for (const row of CANDIDATES) if (labels[row.index]) judged[labels[row.index]]++;
    const total = judged.accepted + judged.rejected + judged.unsure;
    $("count").textContent = plural(order.length, "candidate") + " shown · " + judged.accepted + " accepted, " + judged.rejected + " rejected, " + judged.unsure
      + " unsure · " + (CANDIDATES.length - total) + " undecided";
    $("undo").disabled = !done.length;
    $("redo").disabled = !undone.length;
    $("estimate").textContent = estimate();
    show3d();
  }
  function estimate() {
    const kept = CANDIDATES.filter((row) => row.score >= threshold);
    const random = kept.filter((row) => row.chosen === "random").map((row) => labels[row.index]);
    const accepted = random.filter((label) => label === "accepted").length, rejected = random.filter((label) => label === "rejected").length;
    const n = accepted + rejected, unsure = random.filter((label) => label === "unsure").length;
    if (!n) return random.length ? "Judge those drawn at random, among the suggested, for an estimate of the precision." : "";
    const [low, high] = T3Files.interval(accepted, n);
    return "Of " + plural(n, "candidate") + " drawn at random, " + accepted + (accepted === 1 ? " was" : " were") + " accepted" + (unsure ? " (" + unsure + " more unsure)" : "")
      + ": precision " + low.toFixed(2) + "–" + high.toFixed(2) + ".";
  }
  function expect() {
    const kept = CANDIDATES.filter((row) => row.score >= threshold);
    const entries = [["candidates at or above", kept.length.toLocaleString("en")]];
    if (DATA.expected) {
      const at = T3Plots.expectedAt(DATA.expected, threshold);
      entries.push(["expected precision", percent(at.precision)], ["expected recall", percent(at.recall)]);
      $("expected-note").textContent = "Expected on tomograms like the " + DATA.expected.tomograms + " of the calibration, with " + DATA.expected.truth + " known particles.";
    } else {
      $("expected-note").textContent = DATA.expectedNote;
    }
    if (DATA.calibrated) entries.push(["true ones, by the sum of scores", kept.reduce((sum, row) => sum + row.score, 0).toFixed(1)]);
    if (DATA.truth) {
      const tp = kept.filter((row) => row.outcome === "tp").length;
      entries.push(["true, by the truth", tp], ["false", kept.length - tp], ["missed", DATA.truth.truth - tp]);
    }
    tiles($("expected"), entries);
    $("threshold-value").textContent = threshold.toFixed(2);
    $("threshold").setAttribute("aria-valuetext", threshold.toFixed(2) + ", " + plural(kept.length, "candidate"));
    $("histogram").setAttribute("aria-label", "Histogram of " + plural(CANDIDATES.length, "score") + "; " + kept.length + " are at or above the threshold of " + threshold.toFixed(2));
  }
  function setThreshold(value) {
    threshold = Math.round(value * 100) / 100;
    $("threshold").value = threshold;
    expect();
    arrange();
    if (plot) plot.redraw(false);
    if (curve) curve.redraw(false);
    document.querySelectorAll(".mark").forEach((mark_) => dress(mark_, +mark_.dataset.index));
  }
  // `paper` is a width in pixels; without it the plots are as wide as their panels.
  function drawPlots(paper) {
    plot = T3Plots.histogram($("histogram"), CANDIDATES.map((row) => row.score), DATA.decoys, DATA.expected, () => threshold, setThreshold, paper);
    if (DATA.truth) curve = T3Plots.precisionRecall($("curve"), DATA.truth.curve, () => threshold, paper);
    scene.draw();
  }

  // ---- in space -------------------------------------------------------------------------------------------
  const scene = T3Plots.scene($("scene"), (index) => go(index));
  function colourOf(row) {
    if (row.outcome === "fn") return "unsure";
    return labels[row.index] || "open";
  }
  function show3d() {
    if (!TOMOGRAMS.length) return;
    const t = +$("scene-tomogram").value, tomogram = TOMOGRAMS[t];
    const candidates = ROWS.filter((row) => row.t === t).map((row) => ({
      index: row.index, z: row.z, y: row.y, x: row.x, normal_z: row.nz, normal_y: row.ny, normal_x: row.nx,
      colour: colourOf(row), shown: above(row), current: row.index === current,
    }));
    scene.show({ shape: tomogram.shape || [1, 1, 1], cloud: tomogram.cloud, candidates });
    $("scene").setAttribute("aria-label", plural(candidates.length, "candidate") + " of " + tomogram.name + " in space, with points of the membrane");
  }

  // ---- tomograms ------------------------------------------------------------------------------------------
  const SVG = "http://www.w3.org/2000/svg";
  function svg(tag, attributes) {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }
  function dress(mark_, index) {
    const row = ROWS[index];
    mark_.setAttribute("class", "mark " + (row.outcome === "fn" ? "fn" : labels[index]) + (above(row) ? "" : " below") + (index === current ? " current" : ""));
  }
  function slice(tomogram, t, one) {
    const [, height, width] = tomogram.shape, radius = 200 / tomogram.voxel;
    const overlay = svg("svg", { viewBox: "-0.5 -0.5 " + width + " " + height, preserveAspectRatio: "none", "aria-hidden": "true" });
    if (one.outline) overlay.append(svg("path", { d: one.outline, class: "outline" }));
    const near = ROWS.filter((row) => row.t === t && Math.abs(row.z - one.z) <= one.reach);
    for (const row of near) {
      const group = svg("g", { "data-index": row.index, class: "mark" });
      group.append(
        svg("circle", { cx: row.x, cy: row.y, r: radius }),
        svg("line", { x1: row.x + row.nx * radius, y1: row.y + row.ny * radius, x2: row.x + row.nx * radius * 1.7, y2: row.y + row.ny * radius * 1.7 }),
      );
      const name = svg("title", {});
      name.textContent = title(row) + (row.score === null ? "" : ", score " + row.score.toFixed(3));
      group.append(name);
      dress(group, row.index);
      overlay.append(group);
    }
    const alt = "Slice " + one.z + " of " + tomogram.name + " with " + plural(near.length, "candidate") + (one.outline ? " and the outline of the membrane" : "");
    const nm = ((one.z * tomogram.voxel) / 10).toFixed(0);
    return make("figure", {},
      make("div", { class: "stack" }, make("img", { src: one.src, alt, loading: "lazy", decoding: "async" }), overlay),
      make("figcaption", {}, "z = " + one.z + " (" + nm + " nm)"));
  }
  function tomogramContent(tomogram, t) {
    const content = make("div", { class: "content" });
    if (tomogram.slices.length) content.append(make("div", { class: "slices" }, ...tomogram.slices.map((one) => slice(tomogram, t, one))));
    const stages = Object.entries(tomogram.seconds).filter((entry) => entry[1] >= 0.05);
    if (stages.length) {
      const total = stages.reduce((sum, entry) => sum + entry[1], 0);
      content.append(make("p", { class: "stages" }, "Time: " + total.toFixed(1) + " s (" + stages.map(([name, s]) => name + " " + s.toFixed(1)).join(", ") + ")"));
    }
    return content;
  }
  function buildTomograms() {
    TOMOGRAMS.forEach((tomogram, t) => {
      const rows = CANDIDATES.filter((row) => row.t === t);
      const size = tomogram.shape ? tomogram.shape.join(" × ") + " voxels of " + tomogram.voxel + " Å" : "voxels of " + tomogram.voxel + " Å";
      const details = make("details", { class: "tomogram" }, make("summary", {}, tomogram.name, make("span", {}, plural(rows.length, "candidate") + " · " + size)));
      const open = () => { if (details.open && !details.querySelector(".content")) details.append(tomogramContent(tomogram, t)); };
      details.addEventListener("toggle", open);
      details.open = t < 3;
      open();
      $("tomograms").append(details);
      $("tomogram").append(make("option", { value: t }, tomogram.name));
      $("scene-tomogram").append(make("option", { value: t }, tomogram.name));
    });
    $("tomogram").parentElement.hidden = TOMOGRAMS.length < 2;
    $("scene-tomogram").hidden = TOMOGRAMS.length < 2;
    DATA.kinds.forEach((kind, k) => $("kind").append(make("option", { value: k }, kind.replaceAll("_", " "))));
    $("kind-label").hidden = DATA.kinds.length < 2;
  }
  // Names of tomograms in one line: many tomograms often have the same warning.
  const listed = (names) => names.slice(0, NAMES).join(", ") + (names.length > NAMES ? " and " + (names.length - NAMES) + " more" : "");
  function buildNotes() {
    const lines = DATA.problems.slice(), names = new Map();
    const open = DATA.states.filter((state) => !state.ended);
    for (const state of open.slice(0, STATES)) {
      const attempts = state.attempts > 1 ? " after " + state.attempts + " attempts" : "";
      lines.push(state.name + ": " + state.status + attempts + (state.error ? ": " + state.error : "") + ".");
    }
    if (open.length > STATES) lines.push(plural(open.length - STATES, "more tomogram") + " without an end: see the table of the tomograms.");
    for (const tomogram of TOMOGRAMS) for (const note of tomogram.notes) names.set(note, [...(names.get(note) || []), tomogram.name]);
    for (const [note, of] of names) lines.push(listed(of) + ": " + note);
    if (!lines.length) return;
    $("notes").append(make("ul", {}, ...lines.map((line) => make("li", {}, line))));
    $("notes").hidden = false;
  }
  function buildStates() {
    if (!DATA.states.length) return;
    const counts = new Map();
    for (const state of DATA.states) counts.set(state.status, (counts.get(state.status) || 0) + 1);
    const text = [...counts].map(([status, count]) => count.toLocaleString("en") + " " + status).join(", ");
    const heads = ["tomogram", "status", "candidates", "seconds", "attempts", "worker", "error"];
    const cells = (state) => [state.name, state.status, state.candidates ?? "", state.seconds === null ? "" : state.seconds.toFixed(1), state.attempts || "", state.worker, state.error];
    $("states").append(
      make("summary", {}, plural(DATA.states.length, "tomogram"), make("span", {}, text)),
      make("div", { class: "scroll" }, make("table", {},
        make("caption", { class: "muted" }, "As in summary.json when this page was made; t3ssfast status brings it up to date"),
        make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
        make("tbody", {}, ...DATA.states.map((state) => make("tr", { class: state.ended ? "" : "open" },
          ...cells(state).map((cell, k) => make(k ? "td" : "th", k ? {} : { scope: "row" }, String(cell)))))))),
    );
    $("states").open = DATA.states.some((state) => !state.ended);
    $("states").hidden = false;
  }
  function buildTruth() {
    const truth = DATA.truth;
    if (!truth) return;
    $("truth").hidden = false;
    tiles($("truth-tiles"), [["known particles", truth.truth], ["true (TP)", truth.tp], ["false (FP)", truth.fp], ["missed (FN)", truth.fn], ["precision", truth.precision.toFixed(2)],
      ["recall", truth.recall.toFixed(2)], ["F1", truth.f1.toFixed(2)], ["average precision", truth.average_precision.toFixed(2)]]);
    $("curve").setAttribute("aria-label", "Precision-recall curve with an average precision of " + truth.average_precision.toFixed(2));
    const { found, true: known, counts } = truth.confusion;
    const words = (kind) => kind.replaceAll("_", " ");
    $("confusion").append(make("table", {},
      make("caption", { class: "muted" }, "Candidates (rows) by the particle within " + truth.tolerance_nm + " nm (columns)"),
      make("thead", {}, make("tr", {}, make("th", {}), ...known.map((kind) => make("th", { scope: "col" }, words(kind))))),
      make("tbody", {}, ...found.map((kind, r) => make("tr", {}, make("th", { scope: "row" }, words(kind)), ...counts[r].map((n) => make("td", {}, String(n))))))));
    for (const [value, text] of [["tp", "true (TP)"], ["fp", "false (FP)"], ["fn", "missed (FN)"]]) $("show").append(make("option", { value }, text));
  }

  // ---- files ----------------------------------------------------------------------------------------------
  const plain = (row) => ({
    tomogram: row.name, z: row.z, y: row.y, x: row.x, score: row.score, normal_z: row.nz, normal_y: row.ny, normal_x: row.nx,
    rot: row.rot, tilt: row.tilt, psi: row.psi, kind: row.kindName, label: labels[row.index], chosen_by: row.chosen,
  });
  function download(name, text, type) {
    const url = URL.createObjectURL(new Blob([text], { type }));
    const link = make("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }
  function saveVerdicts(suffix, write, type) {
    const judged = CANDIDATES.filter((row) => labels[row.index]).map(plain);
    if (!judged.length) { say("There are no verdicts yet; judge a candidate first."); return; }
    download(DATA.stem + "_curation." + suffix, write(judged, TOMOGRAMS), type);
    say("Saved " + plural(judged.length, "verdict") + ".");
  }
  function saveParticles() {
    const open = $("with-open").checked;
    const chosen = CANDIDATES.filter((row) => labels[row.index] === "accepted" || (open && !labels[row.index] && row.score >= threshold));
    if (!chosen.length) { say("Nothing is accepted yet; accept a candidate first."); return; }
    if (chosen.some((row) => !TOMOGRAMS[row.t].shape)) { say("The size of a tomogram is not known, so RELION coordinates cannot be written."); return; }
    download(DATA.stem + "_particles.star", T3Files.toParticles(chosen.map(plain), TOMOGRAMS), "text/plain");
    say("Saved " + plural(chosen.length, "particle") + ".");
  }
  async function load(file) {
    try {
      if (file.size > 64e6) throw new Error("the file is too large for a curation file");
      const verdicts = T3Files.parse(file.name, await file.text());
      const positions = {}, voxels = {};
      for (const row of CANDIDATES) (positions[row.name] ??= []).push({ index: row.index, z: row.z, y: row.y, x: row.x });
      for (const tomogram of TOMOGRAMS) voxels[tomogram.name] = tomogram.voxel;
      const changes = [];
      let others = 0;
      for (const verdict of verdicts.filter((one) => one.label)) {
        const index = T3Files.indexOf(verdict, positions, voxels);
        if (index < 0) others++; else if (labels[index] !== verdict.label) changes.push([index, labels[index], verdict.label]);
      }
      for (const [index, , after] of changes) labels[index] = after;
      if (changes.length) { done.push(changes); undone.length = 0; }
      keep();
      changes.forEach(([index]) => paint(index));
      summarise();
      say("Loaded " + file.name + ": " + plural(changes.length, "verdict") + " changed"
        + (others ? "; " + plural(others, "verdict") + (others === 1 ? " is" : " are") + " about no candidate of this page and left out." : "."));
    } catch (error) {
      say("Cannot read " + file.name + ": " + error.message + ".");
    }
  }

  // ---- events ---------------------------------------------------------------------------------------------
  $("cards").addEventListener("click", (event) => {
    const item = event.target.closest(".card");
    if (!item) return;
    const index = +item.dataset.index, button = event.target.closest("button");
    mark(index);
    if (button) judge(index, button.value); else item.focus({ preventScroll: true });
  });
  document.addEventListener("click", (event) => {
    const circle = event.target.closest && event.target.closest(".mark");
    if (circle) {
      const index = +circle.dataset.index;
      if (order.includes(index)) go(index); else say(title(ROWS[index]) + " is hidden by the threshold or a filter.");
    }
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("keydown", (event) => {
    const target = event.target, tag = target.tagName;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "Escape" && tag === "SELECT") toCards();
    if (tag === "SELECT" || tag === "TEXTAREA" || event.altKey) return;
    if (key === "Escape") document.querySelectorAll(".menu[open]").forEach((menu) => { menu.open = false; });
    const isRange = tag === "INPUT" && target.type === "range";
    let handled = true;
    if (key === "z" && !(isRange && (event.ctrlKey || event.metaKey))) { if (event.shiftKey) redo(); else undo(); }
    else if (key === "y" && (event.ctrlKey || event.metaKey)) redo();
    else if (event.ctrlKey || event.metaKey || event.shiftKey) handled = false;
    else if (KEYS[key]) { const index = current; judge(index, KEYS[key]); if (labels[index]) step(1); }
    else if (isRange) handled = false;
    else if (key === "ArrowRight") step(1);
    else if (key === "ArrowLeft") step(-1);
    else if ((key === "ArrowDown" || key === "ArrowUp") && target.closest && target.closest(".card")) step(key === "ArrowDown" ? columns() : -columns());
    else handled = false;
    if (handled) event.preventDefault();
  });
  // A list keeps the letters to itself; who chose in it by mouse goes on with the keys of the verdicts.
  let byPointer = false;
  addEventListener("pointerdown", () => { byPointer = true; }, true);
  addEventListener("keydown", () => { byPointer = false; }, true);
  function toCards() {
    const item = cards[current];
    (item && item.isConnected ? item : $("cards")).focus({ preventScroll: true });
  }
  for (const id of ["sort", "show", "tomogram", "kind", "size"]) {
    $(id).addEventListener("change", () => {
      if (id === "size") $("cards").className = $("size").value;
      else { arrange(); mark(order.length ? order[0] : -1); }
      if (byPointer) toCards();
    });
  }
  $("threshold").addEventListener("input", () => setThreshold(+$("threshold").value));
  $("scene-tomogram").addEventListener("change", show3d);
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  $("more").addEventListener("click", () => { limit += CARDS; fill(); });
  $("save-json").addEventListener("click", () => saveVerdicts("json", T3Files.toJson, "application/json"));
  $("save-csv").addEventListener("click", () => saveVerdicts("csv", T3Files.toCsv, "text/csv"));
  $("save-star").addEventListener("click", () => saveVerdicts("star", T3Files.toStar, "text/plain"));
  $("save-particles").addEventListener("click", saveParticles);
  $("load").addEventListener("change", () => { if ($("load").files[0]) load($("load").files[0]); $("load").value = ""; });
  let timer = 0;
  addEventListener("resize", () => { clearTimeout(timer); timer = setTimeout(() => drawPlots(), 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawPlots());
  // What is printed is complete: all tomograms are open, and colours are those of paper.
  addEventListener("beforeprint", () => { document.querySelectorAll(".tomogram").forEach((one) => { one.open = true; one.dispatchEvent(new Event("toggle")); }); drawPlots(PAPER); });
  addEventListener("afterprint", () => drawPlots());

  // ---- start ----------------------------------------------------------------------------------------------
  restore();
  buildTomograms();
  buildStates();
  buildNotes();
  buildTruth();
  if (anyChosen) {
    $("sort").prepend(make("option", { value: "suggested" }, "suggested first"));
    $("show").prepend(make("option", { value: "suggested" }, "suggested"));
    $("sort").value = "suggested";
    $("show").value = "suggested";
  }
  $("facts").textContent = [(DATA.states.length > TOMOGRAMS.length ? TOMOGRAMS.length.toLocaleString("en") + " of " : "") + plural(Math.max(TOMOGRAMS.length, DATA.states.length), "tomogram"), plural(CANDIDATES.length, "candidate"), DATA.software].filter(Boolean).join(" · ");
  $("made").textContent = DATA.made;
  $("threshold").value = threshold;
  expect();
  arrange();
  document.body.dataset.ready = String(Math.round(performance.now()));
  requestAnimationFrame(() => drawPlots());
})();
