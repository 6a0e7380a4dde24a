"use strict";
// Plots of the page: scores with the threshold, the precision-recall curve, and candidates in space.
const T3Plots = (() => {
  const BINS = 40;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const axis = (label, more) => ({
    label, labelSize: 18, labelGap: 0, size: 30, gap: 3, labelFont: "12px system-ui, sans-serif", font: "11px system-ui, sans-serif", stroke: colour("muted"),
    grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1, size: 4 }, ...more,
  });

  // Values at a score, interpolated in log-odds: a step curve would jump where the calibration has few points.
  function expectedAt(expected, score) {
    const logit = (p) => Math.log(p / (1 - p));
    const clip = (p) => Math.min(1 - 1e-6, Math.max(1e-6, p));
    const x = expected.score.map((p) => logit(clip(p))), t = logit(clip(score));
    let k = x.findIndex((value) => value >= t);
    if (k < 0) k = x.length - 1;
    const at = (values) => {
      if (k === 0 || x[k] === x[k - 1]) return values[k];
      const w = Math.min(1, Math.max(0, (t - x[k - 1]) / (x[k] - x[k - 1])));
      return values[k - 1] + (values[k] - values[k - 1]) * w;
    };
    return { precision: at(expected.precision), recall: at(expected.recall) };
  }

  function counts(scores) {
    const bins = new Array(BINS).fill(0);
    for (const score of scores) bins[Math.min(BINS - 1, Math.max(0, Math.floor(score * BINS)))]++;
    return bins;
  }

  // Draws the histogram into an element; `threshold()` is the present one, `choose(score)` is called on a click.
  function histogram(element, scores, decoys, expected, threshold, choose, width) {
    const x = Array.from({ length: BINS }, (_, k) => (k + 0.5) / BINS);
    const bars = uPlot.paths.bars({ size: [0.86, 60] });
    const series = [{}, { label: "candidates", fill: colour("bar"), width: 0, paths: bars, points: { show: false } }];
    const data = [x, counts(scores)];
    if (decoys) {
      series.push({ label: "decoys", fill: colour("decoy"), width: 0, paths: bars, points: { show: false } });
      data.push(counts(decoys));
    }
    const axes = [axis("score"), axis("candidates", { size: 46 })];
    const scales = { x: { time: false, range: [0, 1] }, y: { range: (u, low, high) => [0, Math.max(1, high) * 1.08] } };
    if (expected) {
      for (const [name, tint] of [["precision", "precision"], ["recall", "recall"]]) {
        series.push({ label: "expected " + name, scale: "share", stroke: colour(tint), width: 2, points: { show: false } });
        data.push(x.map((score) => expectedAt(expected, score)[name]));
      }
      axes.push(axis("expected share", { side: 1, scale: "share", size: 46, grid: { show: false } }));
      scales.share = { range: [0, 1.04] };
    }
    const line = (u) => {
      const ratio = devicePixelRatio, at = Math.round(u.valToPos(threshold(), "x", true)), c = u.ctx;
      c.save();
      c.fillStyle = colour("shade");
      c.fillRect(u.bbox.left, u.bbox.top, Math.max(0, at - u.bbox.left), u.bbox.height);
      c.strokeStyle = colour("accent");
      c.lineWidth = 2 * ratio;
      c.beginPath();
      c.moveTo(at, u.bbox.top);
      c.lineTo(at, u.bbox.top + u.bbox.height);
      c.stroke();
      c.restore();
    };
    element.replaceChildren();
    const plot = new uPlot({
      width: width || Math.max(260, element.clientWidth), height: 230, padding: [10, expected ? 4 : 14, 0, 0],
      cursor: { drag: { x: false, y: false }, points: { show: false }, y: false }, legend: { live: false, markers: { width: 0, fill: (u, k) => (series[k].fill ? series[k].fill : series[k].stroke) } },
      scales, axes, series, hooks: { draw: [line] },
    }, data, element);
    let dragged = false;
    const pick = (event) => {
      const box = plot.over.getBoundingClientRect();
      choose(Math.min(1, Math.max(0, plot.posToVal(event.clientX - box.left, "x"))));
    };
    plot.over.addEventListener("pointerdown", (event) => { dragged = true; plot.over.setPointerCapture(event.pointerId); pick(event); });
    plot.over.addEventListener("pointermove", (event) => { if (dragged) pick(event); });
    plot.over.addEventListener("pointerup", () => { dragged = false; });
    return plot;
  }

  function precisionRecall(element, curve, threshold, width) {
    const [score, precision, recall] = curve;
    const point = (u) => {
      // The last score at or above the threshold; scores descend.
      let k = -1;
      while (k + 1 < score.length && score[k + 1] >= threshold()) k++;
      if (k < 0) return;
      const c = u.ctx;
      c.save();
      c.fillStyle = colour("accent");
      c.beginPath();
      c.arc(u.valToPos(recall[k], "x", true), u.valToPos(precision[k], "y", true), 5 * devicePixelRatio, 0, 7);
      c.fill();
      c.restore();
    };
    element.replaceChildren();
    return new uPlot({
      width: width || Math.max(240, element.clientWidth), height: 230, padding: [10, 14, 0, 0], cursor: { show: false }, legend: { show: false },
      scales: { x: { time: false, range: [0, 1] }, y: { range: [0, 1.04] } },
      axes: [axis("recall"), axis("precision", { size: 46 })],
      series: [{}, { stroke: colour("precision"), width: 2, points: { show: recall.length < 2, fill: colour("precision") } }],
      hooks: { draw: [point] },
    }, [recall, precision], element);
  }

  // Candidates of a tomogram in a canvas, turned by dragging and by arrow keys.
  function scene(canvas, pick) {
    let yaw = 0.6, pitch = 0.5, content = null, placed = [];
    const context = canvas.getContext("2d");

    function draw() {
      const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
      canvas.width = width * ratio;
      canvas.height = height * ratio;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      placed = [];
      if (!content) return;
      const [d, h, w] = content.shape, scale = Math.min(width / Math.hypot(h, w), (1.3 * height) / Math.hypot(d, h, w));
      const cy = Math.cos(yaw), sy = Math.sin(yaw), cp = Math.cos(pitch), sp = Math.sin(pitch);
      const turn = (z, y, x) => {
        const a = x * cy - y * sy, b = x * sy + y * cy;
        return [a, b * sp - z * cp, b * cp + z * sp];
      };
      const project = (z, y, x) => {
        const [a, b, c] = turn(z - d / 2, y - h / 2, x - w / 2);
        return [width / 2 + a * scale, height / 2 + b * scale, c];
      };
      context.strokeStyle = colour("line");
      context.lineWidth = 1;
      for (const [i, j] of [[0, 1], [0, 2], [0, 4], [1, 3], [1, 5], [2, 3], [2, 6], [3, 7], [4, 5], [4, 6], [5, 7], [6, 7]]) {
        const corner = (k) => project(k & 4 ? d : 0, k & 2 ? h : 0, k & 1 ? w : 0);
        const [a, b] = [corner(i), corner(j)];
        context.beginPath();
        context.moveTo(a[0], a[1]);
        context.lineTo(b[0], b[1]);
        context.stroke();
      }
      context.fillStyle = colour("membrane");
      context.globalAlpha = 0.45;
      for (const [z, y, x] of content.cloud) {
        const [a, b] = project(z, y, x);
        context.fillRect(a - 1, b - 1, 2, 2);
      }
      context.globalAlpha = 1;
      placed = content.candidates.map((c) => ({ ...c, at: project(c.z, c.y, c.x) })).sort((a, b) => b.at[2] - a.at[2]);
      const needle = 0.075 * Math.hypot(d, h, w);
      for (const c of placed) {
        const tip = project(c.z + c.normal_z * needle, c.y + c.normal_y * needle, c.x + c.normal_x * needle);
        context.globalAlpha = c.shown ? 1 : 0.25;
        context.strokeStyle = context.fillStyle = colour(c.colour);
        context.lineWidth = c.current ? 3 : 1.6;
        context.beginPath();
        context.moveTo(c.at[0], c.at[1]);
        context.lineTo(tip[0], tip[1]);
        context.stroke();
        context.beginPath();
        context.arc(c.at[0], c.at[1], c.current ? 6.5 : 4, 0, 7);
        context.fill();
        if (c.current) {
          context.strokeStyle = colour("accent");
          context.lineWidth = 2;
          context.beginPath();
          context.arc(c.at[0], c.at[1], 10, 0, 7);
          context.stroke();
        }
      }
      context.globalAlpha = 1;
    }

    let from = null, moved = false;
    canvas.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; moved = false; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      const dx = event.clientX - from[0], dy = event.clientY - from[1];
      if (Math.abs(dx) + Math.abs(dy) > 2) moved = true;
      yaw -= dx * 0.01;
      pitch = Math.min(1.57, Math.max(-1.57, pitch + dy * 0.01));
      from = [event.clientX, event.clientY];
      draw();
    });
    canvas.addEventListener("pointerup", (event) => {
      from = null;
      if (moved) return;
      const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      const near = placed.map((c) => [Math.hypot(c.at[0] - x, c.at[1] - y), c]).sort((a, b) => a[0] - b[0])[0];
      if (near && near[0] < 14) pick(near[1].index);
    });
    canvas.addEventListener("keydown", (event) => {
      const turn = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] }[event.key];
      if (!turn || event.ctrlKey || event.metaKey || event.altKey) return;
      yaw += turn[0];
      pitch = Math.min(1.57, Math.max(-1.57, pitch + turn[1]));
      draw();
      event.preventDefault();
      event.stopPropagation();
    });
    return { draw, angles: () => [yaw, pitch], show(next) { content = next; draw(); } };
  }

  return { expectedAt, histogram, precisionRecall, scene };
})();
