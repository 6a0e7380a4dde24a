"use strict";
// Curation files in the page: JSON, CSV and STAR, as t3ssfast reads and writes them. No access to the page.
const T3Files = (() => {
  const VERSION = 1;
  const LABELS = ["accepted", "rejected", "unsure"];
  // Farther from every candidate, a verdict is about another particle.
  const SAME_ANGSTROM = 20;
  const COLUMNS = ["z", "y", "x", "score", "normal_z", "normal_y", "normal_x", "rot"];
  const STAR_COLUMNS = {
    tomogram: "rlnTomoName", z: "t3ssZ", y: "t3ssY", x: "t3ssX", score: "t3ssScore", normal_z: "t3ssNormalZ",
    normal_y: "t3ssNormalY", normal_x: "t3ssNormalX", rot: "t3ssRot", kind: "t3ssKind", label: "t3ssLabel",
    chosen_by: "t3ssChosenBy", voxel_size_angstrom: "t3ssVoxelSizeAngstrom",
  };
  const number = (value) => String(Number(Number(value).toPrecision(9)));

  // A candidate is {tomogram, z, y, x, score, normal_z, ..., rot, tilt, psi, kind, label, chosen_by}; a
  // tomogram is {name, voxel, shape}.
  function toJson(candidates, tomograms) {
    const used = new Set(candidates.map((c) => c.tomogram));
    const described = tomograms.filter((t) => used.has(t.name)).map((t) => ({
      name: t.name, voxel_size_angstrom: t.voxel, shape_zyx: t.shape,
    }));
    const rows = candidates.map((c) => {
      const row = { tomogram: c.tomogram };
      for (const name of COLUMNS) row[name] = c[name];
      row.kind = c.kind;
      row.label = c.label;
      if (c.chosen_by) row.chosen_by = c.chosen_by;
      return row;
    });
    const content = { format: "t3ssfast-curation", version: VERSION, tomograms: described, candidates: rows };
    return JSON.stringify(content, null, 1) + "\n";
  }

  // Spreadsheets must not take a name for a formula.
  function csvText(text) {
    let value = String(text).replace(/[\0\r\n]/g, "_");
    if (/^'*[=+\-@\t]/.test(value)) value = "'" + value;
    return /[",;]/.test(value) ? '"' + value.replace(/"/g, '""') + '"' : value;
  }

  function toCsv(candidates, tomograms) {
    const size = Object.fromEntries(tomograms.map((t) => [t.name, t.voxel]));
    const names = [...COLUMNS, "tilt", "psi"];
    const lines = [[...names, "kind", "chosen_by", "tomogram", "voxel_size_angstrom", "label", "curation_version"].join(",")];
    for (const c of candidates) {
      const values = names.map((name) => number(c[name]));
      values.push(csvText(c.kind), csvText(c.chosen_by || ""), csvText(c.tomogram), number(size[c.tomogram]));
      lines.push([...values, c.label, VERSION].join(","));
    }
    return lines.join("\n") + "\n";
  }

  function starText(text) {
    const value = String(text).replace(/["'\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "_").trim();
    if (!value) return "none";
    return /^[\w.+:@/\\-]+$/.test(value) && !/^(data_|loop_|_)/.test(value) ? value : '"' + value + '"';
  }

  function block(name, columns, rows) {
    const head = columns.map((column, k) => "_" + column + " #" + (k + 1));
    return ["", "data_" + name, "", "loop_", ...head, ...rows.map((row) => row.join("\t")), ""].join("\n");
  }

  // The blocks of a RELION 5 file of particles.
  function particleBlocks(candidates, tomograms) {
    const by = Object.fromEntries(tomograms.map((t) => [t.name, t]));
    const kinds = [...new Set(candidates.map((c) => c.kind))].sort((a, b) => (a !== "t3ss") - (b !== "t3ss") || (a < b ? -1 : 1));
    if (!kinds.length) kinds.push("t3ss");
    const columns = ["rlnTomoName", "rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst",
      "rlnCenteredCoordinateZAngst", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnAngleTiltPrior",
      "rlnAnglePsiPrior", "rlnAutopickFigureOfMerit", "rlnClassNumber"];
    const rows = candidates.map((c) => {
      const { shape, voxel } = by[c.tomogram];
      const centred = [(c.x - shape[2] / 2) * voxel, (c.y - shape[1] / 2) * voxel, (c.z - shape[0] / 2) * voxel];
      return [starText(c.tomogram), ...[...centred, c.rot, c.tilt, c.psi, c.tilt, c.psi, c.score].map(number), kinds.indexOf(c.kind) + 1];
    });
    const used = tomograms.filter((t) => candidates.some((c) => c.tomogram === t.name));
    const sizes = used.map((t) => [starText(t.name), number(t.voxel), t.shape[2], t.shape[1], t.shape[0]]);
    return block("particles", columns, rows)
      + block("t3ssfast", ["rlnTomoName", "t3ssVoxelSizeAngstrom", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"], sizes)
      + block("t3ssfast_kinds", ["rlnClassNumber", "t3ssKind"], kinds.map((kind, k) => [k + 1, starText(kind)]));
  }

  function toParticles(candidates, tomograms) {
    return "# Written by t3ssfast\n" + particleBlocks(candidates, tomograms);
  }

  function toStar(candidates, tomograms) {
    const used = tomograms.filter((t) => candidates.some((c) => c.tomogram === t.name));
    const sized = used.every((t) => t.shape);
    const accepted = candidates.filter((c) => c.label === "accepted");
    const sizes = used.map((t) => {
      const shape = t.shape || [0, 0, 0];
      return [VERSION, starText(t.name), number(t.voxel), shape[2], shape[1], shape[0]];
    });
    const size = Object.fromEntries(tomograms.map((t) => [t.name, t.voxel]));
    const rows = candidates.map((c) => [starText(c.tomogram), ...COLUMNS.map((name) => number(c[name])),
      starText(c.kind), starText(c.label), starText(c.chosen_by || ""), number(size[c.tomogram])]);
    const names = ["tomogram", ...COLUMNS, "kind", "label", "chosen_by", "voxel_size_angstrom"];
    return "# Written by t3ssfast\n" + (sized ? particleBlocks(accepted, used) : "")
      + block("t3ssfast_curation", ["t3ssCurationVersion", "rlnTomoName", "t3ssVoxelSizeAngstrom", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"], sizes)
      + block("t3ssfast_verdicts", names.map((name) => STAR_COLUMNS[name]), rows);
  }

  function parseJson(text) {
    const content = JSON.parse(text);
    if (content.format !== "t3ssfast-curation" || content.version !== VERSION || !Array.isArray(content.candidates)) {
      throw new Error("this is no curation file of version " + VERSION);
    }
    const size = Object.fromEntries((content.tomograms || []).map((t) => [t.name, t.voxel_size_angstrom]));
    return content.candidates.map((c) => ({ ...c, voxel_size_angstrom: size[c.tomogram] }));
  }

  function parseCsv(text) {
    const rows = [[]];
    let value = "", quoted = false;
    for (let k = 0; k <= text.length; k++) {
      const c = text[k];
      if (quoted && c === '"' && text[k + 1] === '"') { value += '"'; k++; }
      else if (c === '"') quoted = !quoted;
      else if (c === undefined || (!quoted && (c === "," || c === "\n"))) {
        rows[rows.length - 1].push(value.replace(/\r$/, ""));
        value = "";
        if (c === "\n") rows.push([]);
      } else value += c;
    }
    const names = rows[0];
    if (!["z", "y", "x", "label"].every((name) => names.includes(name))) throw new Error("columns z, y, x and label are missing");
    return rows.slice(1).filter((row) => row.length === names.length).map((row) => {
      const c = Object.fromEntries(names.map((name, k) => [name, row[k]]));
      for (const name of ["tomogram", "kind", "chosen_by"]) {
        if (c[name] && /^'+[=+\-@\t]/.test(c[name])) c[name] = c[name].slice(1);
      }
      return c;
    });
  }

  function parseStar(text) {
    const part = text.split(/^data_/m).find((one) => /^t3ssfast_verdicts\s/.test(one));
    if (!part) throw new Error("the block t3ssfast_verdicts is missing");
    const field = Object.fromEntries(Object.entries(STAR_COLUMNS).map(([name, column]) => [column, name]));
    const names = [], found = [];
    for (const line of part.split("\n").slice(1)) {
      if (line.startsWith("_")) names.push(field[line.slice(1).split(/\s/)[0]]);
      else if (line.trim() && !/^(#|loop_)/.test(line)) {
        const tokens = [...line.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map((m) => m[1] ?? m[2] ?? m[3]);
        const c = Object.fromEntries(tokens.map((token, k) => [names[k], token]));
        for (const name of ["label", "chosen_by"]) if (c[name] === "none") c[name] = "";
        found.push(c);
      }
    }
    return found;
  }

  // Returns [{tomogram, z, y, x, label, chosen_by, voxel_size_angstrom}], or throws an Error.
  function parse(name, text) {
    const suffix = name.toLowerCase().split(".").pop();
    const reader = { json: parseJson, csv: parseCsv, star: parseStar }[suffix];
    if (!reader) throw new Error("the suffix is neither .json nor .csv nor .star");
    return reader(text).map((c) => {
      const row = {
        tomogram: String(c.tomogram), z: Number(c.z), y: Number(c.y), x: Number(c.x), label: String(c.label || ""),
        chosen_by: String(c.chosen_by || ""), voxel: Number(c.voxel_size_angstrom),
      };
      if (![row.z, row.y, row.x].every(Number.isFinite)) throw new Error("a position is not a number");
      if (row.label && !LABELS.includes(row.label)) throw new Error("the label " + row.label.slice(0, 40) + " is unknown");
      return row;
    });
  }

  // Returns the index of the candidate that a verdict is about, or -1. `positions` has {index, z, y, x} in
  // voxels by the name of the tomogram, `voxels` their size.
  function indexOf(verdict, positions, voxels) {
    const own = voxels[verdict.tomogram];
    const scale = verdict.voxel > 0 ? verdict.voxel : own;
    let best = -1, least = SAME_ANGSTROM;
    for (const p of positions[verdict.tomogram] || []) {
      const distance = Math.hypot(p.z * own - verdict.z * scale, p.y * own - verdict.y * scale, p.x * own - verdict.x * scale);
      if (distance <= least) { least = distance; best = p.index; }
    }
    return best;
  }

  // The exact 95% interval of Clopper and Pearson for k successes of n.
  function interval(k, n) {
    const logFactorial = [0];
    for (let i = 1; i <= n; i++) logFactorial.push(logFactorial[i - 1] + Math.log(i));
    const tail = (p, from, to) => {
      let sum = 0;
      for (let i = from; i <= to; i++) {
        sum += Math.exp(logFactorial[n] - logFactorial[i] - logFactorial[n - i] + i * Math.log(p) + (n - i) * Math.log1p(-p));
      }
      return sum;
    };
    const solve = (rising, from, to) => {
      let low = 0, high = 1;
      for (let step = 0; step < 50; step++) {
        const p = (low + high) / 2;
        if ((tail(p, from, to) < 0.025) === rising) low = p; else high = p;
      }
      return (low + high) / 2;
    };
    return [k === 0 ? 0 : solve(true, k, n), k === n ? 1 : solve(false, 0, k)];
  }

  return { LABELS, toJson, toCsv, toStar, toParticles, parse, indexOf, interval };
})();
