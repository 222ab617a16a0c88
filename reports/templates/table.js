"use strict";
(function () {
  const source = document.getElementById("explorer-rows");
  if (!source) return;
  const { columns, numeric, shown, choices, pool, rows } = JSON.parse(source.textContent);
  const STEP = 100;
  const table = document.getElementById("explorer-table");
  const body = table.tBodies[0];
  const find = document.getElementById("explorer-find");
  const status = document.getElementById("explorer-shown");
  const more = document.getElementById("explorer-more");
  const isNumeric = new Set(numeric);
  // Text cells are stored once, in the pool, and named by their place in it.
  const text = (row, column) => {
    const value = row[column];
    if (value === null) return "–";
    return isNumeric.has(column) ? format(value) : pool[value];
  };
  const format = (value) => {
    if (typeof value === "string") return value;
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
    return String(Number(value.toPrecision(3)));
  };
  // NaN and the infinities are strings; they sort beyond every number, NaN last.
  const rank = (value) => {
    if (value === "NaN") return [1, 2];
    if (value === "INF") return [1, 1];
    if (value === "-INF") return [-1, 0];
    return [0, value];
  };
  const compareNumbers = (a, b) => {
    if (a === null || b === null) return (a === null ? 0 : 1) - (b === null ? 0 : 1);
    const [p, q] = rank(a), [r, s] = rank(b);
    return p - r || (q < s ? -1 : q > s ? 1 : 0);
  };
  const words = rows.map((row) => columns.map((_, column) => text(row, column)).join(" ").toLowerCase());
  const picked = new Map();
  let order = rows.map((_, place) => place);
  let sorted = null;
  let limit = STEP;
  let visible = [];

  function choose(column) {
    const label = document.createElement("label");
    label.append(columns[column] + " ");
    const select = document.createElement("select");
    const values = [...new Set(rows.map((row) => row[column]))].filter((value) => value !== null);
    values.sort((a, b) => (pool[a] < pool[b] ? -1 : 1));
    select.append(new Option("all", ""));
    for (const value of values) select.append(new Option(pool[value] || "(none)", value));
    select.addEventListener("change", () => {
      if (select.value === "") picked.delete(column); else picked.set(column, Number(select.value));
      refresh();
    });
    label.append(select);
    document.getElementById("explorer-choices").append(label);
  }

  function refresh() {
    const terms = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    visible = order.filter((place) => {
      for (const [column, value] of picked) if (rows[place][column] !== value) return false;
      return terms.every((term) => words[place].includes(term));
    });
    limit = STEP;
    draw();
  }

  function draw() {
    const fragment = document.createDocumentFragment();
    for (const place of visible.slice(0, limit)) {
      const line = document.createElement("tr");
      const row = rows[place];
      line.dataset.place = place;
      line.tabIndex = 0;
      line.className = pool[row[0]] === "pass" ? "good" : pool[row[0]] === "FAIL" ? "bad" : "note";
      for (const column of shown) {
        const cell = line.insertCell();
        cell.textContent = text(row, column);
        if (isNumeric.has(column)) cell.className = "number";
      }
      fragment.append(line);
    }
    body.replaceChildren(fragment);
    const drawn = Math.min(limit, visible.length);
    status.textContent = `${drawn} of ${visible.length} rows shown, ${rows.length} measured; a click on a row shows why and how to measure it again`;
    more.parentElement.hidden = drawn === visible.length;
  }

  function open(line) {
    const next = line.nextElementSibling;
    if (next && next.classList.contains("detail")) { next.remove(); return; }
    const detail = document.createElement("tr");
    detail.className = "detail";
    const cell = detail.insertCell();
    cell.colSpan = shown.length;
    const list = document.createElement("dl");
    columns.forEach((name, column) => {
      const value = text(rows[line.dataset.place], column);
      if (shown.includes(column) || value === "" || value === "–") return;
      const pair = document.createElement("div");
      const term = document.createElement("dt");
      const meaning = document.createElement("dd");
      term.textContent = name;
      if (name === "replay") {
        const code = document.createElement("code");
        code.textContent = value;
        meaning.append(code);
        pair.style.gridColumn = "1 / -1";
      } else meaning.textContent = value;
      pair.append(term, meaning);
      list.append(pair);
    });
    cell.append(list);
    line.after(detail);
  }

  function sort(position, heading) {
    const column = shown[position];
    const descending = sorted === column && heading.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    sorted = column;
    const by = isNumeric.has(column)
      ? (a, b) => compareNumbers(rows[a][column], rows[b][column])
      : (a, b) => (text(rows[a], column) < text(rows[b], column) ? -1 : text(rows[a], column) > text(rows[b], column) ? 1 : 0);
    order = rows.map((_, place) => place).sort((a, b) => (descending ? -by(a, b) : by(a, b)) || a - b);
    refresh();
  }

  [...table.tHead.rows[0].cells].forEach((heading, position) => {
    heading.tabIndex = 0;
    heading.addEventListener("click", () => sort(position, heading));
    heading.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(position, heading); });
  });
  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr[data-place]");
    if (line) open(line);
  });
  body.addEventListener("keydown", (event) => {
    const line = event.target.closest("tr[data-place]");
    if (line && event.key === "Enter") open(line);
  });
  find.addEventListener("input", refresh);
  more.addEventListener("click", () => { limit += 4 * STEP; draw(); });
  document.getElementById("explorer-reset").addEventListener("click", () => {
    find.value = "";
    picked.clear();
    for (const select of document.querySelectorAll("#explorer-choices select")) select.value = "";
    for (const heading of table.tHead.rows[0].cells) heading.removeAttribute("aria-sort");
    order = rows.map((_, place) => place);
    sorted = null;
    refresh();
  });
  for (const column of choices) choose(column);
  for (const part of document.querySelectorAll(".controls")) part.hidden = false;
  refresh();
})();
