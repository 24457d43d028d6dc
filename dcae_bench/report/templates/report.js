// Everything that the page does by itself. Tables are DataTables', charts are Vega's.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const json = (id) => JSON.parse(document.getElementById(id).textContent);
const element = (name, text = "", children = []) => {
  const made = document.createElement(name);
  made.textContent = text; // never HTML: names come from records
  made.append(...children);
  return made;
};
document.documentElement.classList.add("js");

const status = document.getElementById("status");
let fading;
function say(text) {
  status.textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => (status.textContent = ""), 2500);
}

// Records: a click on a cell opens the panel of its record, with the column's metric marked.
const { texts, panels } = json("panels");
const dialog = document.getElementById("record");
function panelOf(id, metric) {
  const one = panels[id];
  const [title, kind, source, path] = one.head.map((index) => texts[index]);
  document.getElementById("record-title").textContent = title;
  const facts = (name, pairs) => [
    element("h3", name),
    element("dl", "", pairs.flatMap(([fact, value]) => [element("dt", texts[fact]), element("dd", texts[value])])),
  ];
  const rows = one.metrics.map((cells) => {
    const row = element("tr", "", cells.map((index) => element("td", texts[index])));
    row.classList.toggle("asked", texts[cells[0]] === metric);
    return row;
  });
  const heads = element("tr", "", ["metric", "value", "unit", "interval and notes"].map((text) => element("th", text)));
  return [
    element("p", `${kind} · ${source}`),
    ...(rows.length ? [element("table", "", [heads, ...rows])] : []),
    ...one.groups.flatMap(([name, pairs]) => facts(texts[name], pairs)),
    element("p", `File or key: ${path}`),
  ];
}
function openRecords(ids, metric) {
  const body = document.getElementById("record-body");
  const show = (id) => {
    const buttons = ids.map((other) => {
      const button = element("button", other);
      button.type = "button";
      button.setAttribute("aria-current", String(other === id));
      button.onclick = () => { show(other); body.querySelector("[aria-current=true]").focus(); };
      return button;
    });
    body.replaceChildren(...(ids.length > 1 ? [element("nav", "", buttons)] : []), ...panelOf(id, metric));
  };
  show(ids[0]);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
document.addEventListener("click", (event) => {
  if (event.target === dialog) return dialog.close();
  const link = event.target.closest("a.open");
  if (link) {
    event.preventDefault();
    return openRecords([link.hash.slice(1)]);
  }
  const cell = event.target.closest("tr[data-records] td");
  if (!cell || event.target.closest("a, button") || String(getSelection())) return;
  const heads = all("thead th", cell.closest("table"));
  openRecords(cell.parentElement.dataset.records.split(" "), heads[cell.cellIndex]?.dataset.label.replace(/^Δ /, ""));
});

// Footnotes: as tooltips of their marks; below the table they stand as text.
const tip = document.getElementById("tip");
function showTip(event) {
  const mark = event.target.closest?.("a.note");
  const note = mark && document.getElementById(mark.hash.slice(1));
  tip.hidden = !note;
  if (!note) return;
  tip.textContent = note.textContent;
  const place = mark.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${place.bottom + tip.offsetHeight + 8 < innerHeight ? place.bottom + 6 : place.top - tip.offsetHeight - 6}px`;
}
for (const kind of ["mouseover", "focusin"]) document.addEventListener(kind, showTip);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
addEventListener("scroll", () => (tip.hidden = true), { passive: true });
function reveal() {
  const aim = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let box = aim?.closest?.("details"); box; box = box.parentElement.closest("details")) box.open = true;
  aim?.scrollIntoView?.({ block: "center" });
}
addEventListener("hashchange", reveal);

// Tables: sort, filter, hide columns, copy what is shown.
const plain = (cell) => {
  const copy = cell.cloneNode(true);
  for (const part of all("sup, [aria-hidden]", copy)) part.remove();
  return copy.textContent.replace(/\s+/g, " ").trim();
};
const FORMATS = {
  CSV: (heads, rows) => [heads, ...rows].map((row) => row.map((text) => `"${text.replaceAll('"', '""')}"`).join(",")).join("\n"),
  Markdown: (heads, rows) => [heads, heads.map(() => "---"), ...rows]
    .map((row) => `| ${row.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`).join("\n"),
  LaTeX: (heads, rows, sides) => {
    const signs = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "↑": "$\\uparrow$",
      "↓": "$\\downarrow$", "Δ": "$\\Delta$", "→": "$\\rightarrow$", "×": "$\\times$" };
    const tex = (text) => text.replace(/[\\~^±−↑↓Δ→×]|[&%$#_{}]/g, (sign) => signs[sign] ?? `\\${sign}`);
    const line = (row) => `${row.map(tex).join(" & ")} \\\\`;
    return ["% \\usepackage{booktabs}", `\\begin{tabular}{${sides.join("")}}`, "\\toprule", line(heads), "\\midrule", ...rows.map(line),
      "\\bottomrule", "\\end{tabular}"].join("\n");
  },
};
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
function exported(table, format) {
  const columns = table.columns(":visible:not(.opens)").indexes().toArray();
  const heads = columns.map((index) => plain(table.column(index).header()));
  const sides = columns.map((index) => (table.column(index).header().classList.contains("right") ? "r" : "l"));
  const rows = table.rows({ search: "applied", order: "applied" }).indexes().toArray();
  return FORMATS[format](heads, rows.map((row) => columns.map((column) => plain(table.cell(row, column).node()))), sides);
}
function enhance(node) {
  if (node.classList.contains("dataTable")) return;
  const box = node.parentElement;
  const table = new DataTable(node, {
    paging: false, order: [], autoWidth: false,
    columnDefs: [{ targets: "opens", orderable: false, searchable: false }],
    language: { search: "Filter", info: "_TOTAL_ rows", infoFiltered: "of _MAX_", zeroRecords: "No row matches" },
    layout: {
      topStart: "search", bottomStart: "info", bottomEnd: null,
      topEnd: { buttons: [
        { extend: "colvis", text: "Columns", columns: ":not(.opens)", background: false, columnText: (_, index, title) => title },
        ...Object.keys(FORMATS).reverse().map((format) => ({
          text: `Copy ${format}`,
          action: async (_, api) => { await copy(exported(api, format)); say(`Copied as ${format}`); },
        })),
      ] },
    },
  });
  const container = table.table().container();
  box.replaceWith(container); // the container holds the table; the scrolling box goes inside it
  node.before(box);
  box.append(node);
}
function enhanceVisible(root) {
  for (const node of all("table.data", root)) if (!node.closest("details:not([open])")) enhance(node);
}

// Charts: drawn when they come into view; the drawing that the page brings stays for print and for readers without scripts.
const specs = json("specs");
const views = new Map();
async function draw(figure) {
  const plot = figure.querySelector(".plot");
  if (views.has(figure)) return views.get(figure);
  const place = plot.appendChild(element("div"));
  place.style.width = "100%";
  const spec = { ...specs[figure.id], autosize: { type: "fit-x", contains: "padding" } };
  const made = vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: true }).then((result) => {
    plot.classList.add("drawn"); // until now the drawing keeps the place, so that nothing moves under the pointer
    return result.view;
  });
  views.set(figure, made);
  return made;
}
const watcher = new IntersectionObserver((seen) => { for (const one of seen) if (one.isIntersecting) draw(one.target); }, { rootMargin: "200px" });
for (const figure of all("figure.chart")) {
  watcher.observe(figure);
  for (const button of all("[data-save]", figure)) {
    button.onclick = async () => {
      const link = element("a");
      link.href = await (await draw(figure)).toImageURL(button.dataset.save, 3);
      link.download = `${figure.id}.${button.dataset.save}`;
      link.click();
    };
  }
}

// Images: one slider and one zoom for all images of a comparison.
for (const compare of all(".compare")) {
  const control = (name) => compare.querySelector(`[data-${name}]`);
  const groups = all(".group", compare);
  const set = (name, value) => compare.style.setProperty(`--${name}`, value);
  const zoom = (value) => { control("zoom").value = value; set("zoom", control("zoom").value); };
  const choose = () => {
    const group = groups[control("group").value];
    for (const other of groups) other.classList.toggle("shown", other === group);
    const shots = all(".shot", group);
    if (!control("shot")) return; // all are shown at once
    const chosen = Math.min(Math.max(control("shot").selectedIndex, 0), shots.length - 1);
    control("shot").replaceChildren(...shots.map((shot) => element("option", shot.dataset.title)));
    control("shot").selectedIndex = chosen;
    shots.forEach((shot, index) => shot.classList.toggle("shown", index === chosen));
  };
  control("group").onchange = choose;
  if (control("shot")) control("shot").onchange = choose;
  control("wipe").oninput = (event) => set("wipe", event.target.value);
  control("zoom").oninput = (event) => zoom(event.target.value);
  let at = { x: 50, y: 50 };
  const look = (x, y) => {
    at = { x: Math.min(100, Math.max(0, x)), y: Math.min(100, Math.max(0, y)) };
    set("x", `${at.x}%`);
    set("y", `${at.y}%`);
  };
  compare.addEventListener("pointermove", (event) => {
    const view = event.target.closest(".view");
    if (!view) return;
    const box = view.getBoundingClientRect();
    look((100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height);
  });
  compare.addEventListener("keydown", (event) => {
    if (!event.target.classList.contains("view")) return;
    const steps = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, -5], ArrowDown: [0, 5] };
    if (event.key in steps) look(at.x + steps[event.key][0], at.y + steps[event.key][1]);
    else if ("+=".includes(event.key)) zoom(Number(control("zoom").value) + 1);
    else if (event.key === "-") zoom(Number(control("zoom").value) - 1);
    else return;
    event.preventDefault();
  });
  choose();
}

for (const box of all("details")) box.addEventListener("toggle", () => { if (box.open) enhanceVisible(box); });
enhanceVisible(document);
// Paper shows this run whole, and of evidence and the list of records what the reader has opened.
addEventListener("beforeprint", () => {
  for (const box of all("details")) if (!box.closest(".committed:not([open]), #records-list:not([open])")) box.open = true;
});
reveal();
