"use strict";
// The fact browser: all facts are in the page as JSON, rows are made as they are asked for.
(() => {
  const AT_ONCE = 100;
  const data = JSON.parse(document.getElementById("data").textContent);
  const place = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const percent = (value) => (value === null ? "-" : (value > 0 ? "+" : "") + (100 * value).toFixed(1) + " %");
  const probability = (value) => (value === null ? "-" : value >= 0.001 ? value.toFixed(3) : value.toExponential(1));
  const pairs = (fact) => {
    const flat = fact[place.neurons] || [];
    return flat.filter((_, index) => index % 2 === 0).map((layer, index) => layer + "." + flat[2 * index + 1]);
  };
  const share = (fact) => (fact[place.prompts] ? fact[place.right] / fact[place.prompts] : null);
  const prompt = (end) => (fact) =>
    fact[place[end]] === null ? "-" : [fact[place[end]], probability(fact[place[end + " probability"]])];

  // Each column: its head, what it sorts by, what it shows, how wide it is, and whether it is a number.
  const columns = [
    ["relation", (entry) => entry.order, (fact, entry) => entry.relation, 6.5],
    ["fact", (entry) => entry.number, (fact, entry) => String(entry.number), 4.5, true],
    ["answer", (entry) => entry.fact[place.answer], (fact) => fact[place.answer], 10],
    ["probability", (entry) => entry.fact[place.probability], (fact) => probability(fact[place.probability]), 8.5, true],
    ["right", (entry) => share(entry.fact), (fact) => fact[place.right] + "/" + fact[place.prompts], 5.5, true],
    ["suppressed", (entry) => entry.fact[place.suppressed], (fact) => percent(fact[place.suppressed]), 9, true],
    ["amplified", (entry) => entry.fact[place.amplified], (fact) => percent(fact[place.amplified]), 8.5, true],
    ["count", (entry) => entry.fact[place.neurons] && entry.fact[place.neurons].length / 2,
      (fact) => (fact[place.neurons] ? String(fact[place.neurons].length / 2) : "-"), 6, true],
    ["neurons", (entry) => pairs(entry.fact).join(" "), (fact) => pairs(fact).join(" ") || "-", 11.5],
    ["best prompt", (entry) => entry.fact[place["best probability"]], prompt("best"), 15],
    ["worst prompt", (entry) => entry.fact[place["worst probability"]], prompt("worst"), 15],
  ];

  const every = [];
  Object.entries(data.relations).forEach(([relation, { facts }], order) =>
    facts.forEach((fact, number) => every.push({ relation, order, number, fact, text: null })));
  const textOf = (entry) => {
    if (entry.text === null) {
      const { fact } = entry;
      const label = data.relations[entry.relation].label;
      entry.text = [label, fact[place.answer], fact[place.best], fact[place.worst], ...pairs(fact)].join(" ").toLowerCase();
    }
    return entry.text;
  };

  const chooser = document.getElementById("relation");
  const filter = document.getElementById("filter");
  const more = document.getElementById("more");
  const table = document.getElementById("facts-table");
  const [heads, rows] = [table.tHead.rows[0], table.tBodies[0]];
  const collator = new Intl.Collator();
  let sorted = { column: null, up: true };
  let chosen = [];

  function choose() {
    const wanted = filter.value.trim().toLowerCase();
    chosen = every.filter((entry) =>
      (chooser.value === "" || entry.relation === chooser.value) && (wanted === "" || textOf(entry).includes(wanted)));
    if (sorted.column !== null) {
      const key = columns[sorted.column][1];
      const keyed = chosen.map((entry) => [key(entry), entry]);
      const sign = sorted.up ? 1 : -1;
      keyed.sort(([a], [b]) => {
        const missing = (a === null || a === "") - (b === null || b === "");  // last, whichever way
        if (missing || a === null) return missing;
        return sign * (typeof a === "string" ? collator.compare(a, b) : a - b);
      });
      chosen = keyed.map(([, entry]) => entry);
    }
    rows.replaceChildren();
    show();
  }

  function show() {
    const begin = rows.rows.length;
    for (const entry of chosen.slice(begin, begin + AT_ONCE)) {
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
    const left = chosen.length - rows.rows.length;
    more.hidden = left === 0;
    more.textContent = `${Math.min(left, AT_ONCE)} more of ${left.toLocaleString("en")}`;
    document.getElementById("count").textContent = `${chosen.length.toLocaleString("en")} facts`;
  }

  function sortBy(column) {
    sorted = { column, up: sorted.column === column ? !sorted.up : true };
    [...heads.cells].forEach((head, index) =>
      index === column ? head.setAttribute("aria-sort", sorted.up ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
    choose();
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
  chooser.add(new Option(`all ${Object.keys(data.relations).length}`, ""));
  for (const [relation, { label, facts }] of Object.entries(data.relations))
    chooser.add(new Option(`${label}, ${facts.length}`, relation));
  chooser.value = Object.keys(data.relations)[0];
  chooser.addEventListener("change", choose);
  filter.addEventListener("input", choose);
  more.addEventListener("click", show);
  document.getElementById("browser").hidden = false;
  choose();
})();
