"use strict";
// The fact browser. All facts are in the page as JSON; rows are made as they are needed.
(() => {
  const AT_ONCE = 100;
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const percent = (value) => (value === null ? "-" : (value > 0 ? "+" : "") + (100 * value).toFixed(1) + " %");
  const probability = (value) => (value === null ? "-" : value >= 0.001 ? value.toFixed(3) : value.toExponential(1));
  const pairs = (fact) => {
    const flat = fact[at.neurons] || [];
    return flat.filter((_, index) => index % 2 === 0).map((layer, index) => layer + "." + flat[2 * index + 1]);
  };
  const share = (fact) => (fact[at.prompts] ? fact[at.right] / fact[at.prompts] : null);
  const prompt = (end) => (fact) =>
    fact[at[end]] === null ? "-" : [fact[at[end]], probability(fact[at[end + " probability"]])];

  // Each column: head, what it sorts by, what it shows, width in percent, and whether it is a number.
  const columns = [
    ["relation", (entry) => entry.order, (fact, entry) => entry.relation, 6.5],
    ["fact", (entry) => entry.number, (fact, entry) => String(entry.number), 4.5, true],
    ["answer", (entry) => entry.fact[at.answer], (fact) => fact[at.answer], 10],
    ["probability", (entry) => entry.fact[at.probability], (fact) => probability(fact[at.probability]), 8.5, true],
    ["right", (entry) => share(entry.fact), (fact) => fact[at.right] + "/" + fact[at.prompts], 5.5, true],
    ["suppressed", (entry) => entry.fact[at.suppressed], (fact) => percent(fact[at.suppressed]), 9, true],
    ["amplified", (entry) => entry.fact[at.amplified], (fact) => percent(fact[at.amplified]), 8.5, true],
    ["count", (entry) => entry.fact[at.neurons] && entry.fact[at.neurons].length / 2,
      (fact) => (fact[at.neurons] ? String(fact[at.neurons].length / 2) : "-"), 6, true],
    ["neurons", (entry) => pairs(entry.fact).join(" "), (fact) => pairs(fact).join(" ") || "-", 11.5],
    ["best prompt", (entry) => entry.fact[at["best probability"]], prompt("best"), 15],
    ["worst prompt", (entry) => entry.fact[at["worst probability"]], prompt("worst"), 15],
  ];

  const entries = [];
  Object.entries(data.relations).forEach(([relation, { facts }], order) =>
    facts.forEach((fact, number) => entries.push({ relation, order, number, fact, text: null })));
  const textOf = (entry) => {
    if (entry.text === null) {
      const { fact } = entry;
      const label = data.relations[entry.relation].label;
      entry.text = [label, fact[at.answer], fact[at.best], fact[at.worst], ...pairs(fact)].join(" ").toLowerCase();
    }
    return entry.text;
  };

  const relationMenu = document.getElementById("relation");
  const filter = document.getElementById("filter");
  const more = document.getElementById("more");
  const table = document.getElementById("facts-table");
  const [heads, rows] = [table.tHead.rows[0], table.tBodies[0]];
  const collator = new Intl.Collator();
  let sorted = { column: null, up: true };
  let visible = [];

  function update() {
    const wanted = filter.value.trim().toLowerCase();
    visible = entries.filter((entry) =>
      (relationMenu.value === "" || entry.relation === relationMenu.value) && (wanted === "" || textOf(entry).includes(wanted)));
    if (sorted.column !== null) {
      const key = columns[sorted.column][1];
      const keyed = visible.map((entry) => [key(entry), entry]);
      const sign = sorted.up ? 1 : -1;
      keyed.sort(([a], [b]) => {
        const missing = (a === null || a === "") - (b === null || b === "");  // last in either order
        if (missing || a === null) return missing;
        return sign * (typeof a === "string" ? collator.compare(a, b) : a - b);
      });
      visible = keyed.map(([, entry]) => entry);
    }
    rows.replaceChildren();
    show();
  }

  function show() {
    const begin = rows.rows.length;
    for (const entry of visible.slice(begin, begin + AT_ONCE)) {
      const row = rows.insertRow();
      for (const [, , shown, , isNumber] of columns) {
        const cell = row.insertCell();
        const value = shown(entry.fact, entry);
        if (isNumber) cell.className = "number";
        if (Array.isArray(value)) {
          cell.append(value[0] + " ");
          cell.appendChild(Object.assign(document.createElement("span"), { className: "sub", textContent: value[1] }));
        } else cell.textContent = value;
      }
      row.cells[0].title = data.relations[entry.relation].label;
    }
    const left = visible.length - rows.rows.length;
    more.hidden = left === 0;
    more.textContent = `${Math.min(left, AT_ONCE)} more of ${left.toLocaleString("en")}`;
    document.getElementById("count").textContent = `${visible.length.toLocaleString("en")} facts`;
  }

  function sortBy(column) {
    sorted = { column, up: sorted.column === column ? !sorted.up : true };
    [...heads.cells].forEach((head, index) =>
      index === column ? head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
    update();
  }

  columns.forEach(([name, , , width, isNumber], index) => {
    const head = document.createElement("th");
    head.style.width = width + "%";
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: name });
    if (isNumber) head.className = "number";
    button.addEventListener("click", () => sortBy(index));
    head.appendChild(button);
    heads.appendChild(head);
  });
  relationMenu.add(new Option(`all ${Object.keys(data.relations).length}`, ""));
  for (const [relation, { label, facts }] of Object.entries(data.relations))
    relationMenu.add(new Option(`${label}, ${facts.length}`, relation));
  relationMenu.value = Object.keys(data.relations)[0];
  relationMenu.addEventListener("change", update);
  filter.addEventListener("input", update);
  more.addEventListener("click", show);
  document.getElementById("browser").hidden = false;
  update();
})();
