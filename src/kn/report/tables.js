"use strict";
// All tables of the page. Heads of `.sortable` tables sort their rows. `Tables.browse` shows entries that are in the
// page as JSON, a hundred at a time, with a menu, a search and heads that sort. The address page.html#facts=5.11
// searches the browser named "facts" for 5.11, so any link can.
const Tables = (() => {
  const AT_ONCE = 100;
  const NEURON = /^\d+\.\d+$/;
  const collator = new Intl.Collator("en", { numeric: true });
  const browsers = {};
  const byId = (id) => document.getElementById(id);
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

  const missing = (value) => value === null || value === undefined || value === "";

  function sorted(items, key, up) {
    const sign = up ? 1 : -1;
    return items
      .map((item) => [key(item), item])
      .sort(([a], [b]) => {
        if (missing(a) || missing(b)) return missing(a) - missing(b); // last in either order
        return sign * (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
      })
      .map(([, item]) => item);
  }

  // Makes the heads of a table buttons. `sort` gets the column and whether the order is ascending.
  function sortable(table, sort) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = make("button", { type: "button", title: "sort" });
      button.append(...head.childNodes);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(column, up);
      });
      head.append(button);
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) continue;
    const key = (column) => (row) => {
      const { value } = row.cells[column].dataset;
      return value === undefined ? row.cells[column].textContent : Number(value);
    };
    sortable(table, (column, up) => table.tBodies[0].append(...sorted(rows, key(column), up)));
  }

  // entries: objects with `group`, a value of the menu. columns: `name`; `key(entry)`, to sort by; `show(entry)`, a
  // text, a node or a list of both; `number: true`; `width` in percent; `wide: true`, the whole width on a telephone.
  // text(entry): what the search finds; neurons(entry): names such as 5.11, of which it finds only whole ones.
  // groups: pairs of value and label for the menu. noun: what the entries are.
  function browse(name, { entries, columns: all, text, neurons, groups, noun }) {
    const columns = all.filter(({ key }) => entries.some((entry) => !missing(key(entry)))); // without unmeasured ones
    const part = (id) => byId(`${name}-${id}`);
    const [table, menu, search, more, none] = ["table", "menu", "search", "more", "none"].map(part);
    const [heads, body] = [table.tHead.rows[0], table.tBodies[0]];
    const texts = new Map();
    let order = entries;
    let visible = [];

    function matches(entry, terms) {
      if (menu.value !== "" && entry.group !== menu.value) return false;
      return terms.every((term) => {
        if (NEURON.test(term)) return neurons(entry).includes(term);
        if (!texts.has(entry)) texts.set(entry, text(entry).toLowerCase());
        return texts.get(entry).includes(term);
      });
    }

    function update() {
      const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      visible = order.filter((entry) => matches(entry, terms));
      body.replaceChildren();
      show();
      part("count").textContent = `${visible.length.toLocaleString("en")} ${noun}`;
      none.hidden = visible.length > 0;
      table.hidden = visible.length === 0;
      const where = menu.value === "" ? "" : ` in ${menu.selectedOptions[0].textContent}`;
      none.textContent = `No ${noun}${where} match “${search.value.trim()}”. `
        + "Words are searched in the texts; a neuron is layer.neuron, such as 5.11, and must be whole.";
    }

    function show() {
      const begin = body.rows.length;
      for (const entry of visible.slice(begin, begin + AT_ONCE)) {
        const row = body.insertRow();
        for (const column of columns) {
          const cell = row.insertCell();
          cell.dataset.label = column.name;
          cell.className = [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");
          cell.append(...[column.show(entry)].flat());
        }
      }
      const left = visible.length - body.rows.length;
      more.hidden = left === 0;
      more.textContent = `Show ${Math.min(left, AT_ONCE)} more of ${left.toLocaleString("en")}`;
    }

    for (const { name: title, width, number } of columns) {
      const head = make("th", { scope: "col", textContent: title, className: number ? "number" : "" });
      head.style.width = `${width}%`;
      heads.append(head);
    }
    sortable(table, (column, up) => {
      order = sorted(entries, columns[column].key, up);
      update();
    });
    menu.add(new Option(`all ${groups.length}`, ""));
    for (const [value, label] of groups) menu.add(new Option(label, value));
    menu.addEventListener("change", update);
    search.addEventListener("input", update);
    search.form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", show);
    browsers[name] = (query) => {
      menu.value = "";
      search.value = query;
      update();
      byId(name).scrollIntoView();
      search.focus({ preventScroll: true });
    };
    part("browser").hidden = false;
    update();
    if (location.hash.startsWith(`#${name}=`)) follow();
  }

  function follow() {
    const [, name, query] = location.hash.match(/^#(\w+)=(.*)$/) || [];
    if (name in browsers) browsers[name](decodeURIComponent(query));
  }
  window.addEventListener("hashchange", follow);

  // A link to the entries of a browser that have a text or a neuron; plain text if the page has no such browser.
  const link = (name, query) =>
    byId(name) ? make("a", { href: `#${name}=${encodeURIComponent(query)}`, textContent: query }) : query;
  const json = (id) => JSON.parse(byId(id).textContent);
  return { browse, link, json };
})();
