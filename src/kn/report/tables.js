"use strict";
// All tables of the page. Heads of `.sortable` tables sort their rows. `Tables.browse` shows entries that are in the
// page as JSON, a hundred at a time, with a menu, a search and heads that sort. The address page.html#facts=5.11
// searches the browser named "facts" for 5.11, so any link can.
const Tables = (() => {
  const AT_ONCE = 100;
  const NEURON = /^\d+\.\d+$/;
  const parsed = new Map(); // by id
  const collator = new Intl.Collator("en", { numeric: true });
  const browsers = {};
  const byId = (id) => document.getElementById(id);
  const make = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

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
      const button = make("button", { type: "button", title: "sort" }, ...head.childNodes);
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

  // columns: `name`; `key(entry)`, to sort by; `show(entry)`, a text, a node or a list of both; `number: true`;
  // `width` in percent; `wide: true`, the whole width on a telephone.
  // text(entry): what the search finds; names(entry): names such as 5.11, of which it finds only whole ones.
  // menus: by id, `options`, pairs of value and label, and `has(entry, value)`. noun: what an entry is.
  // one(entry): nodes that are shown instead of the table when there is only one entry left.
  function browse(name, { entries, columns: named, text, names, menus, noun, one }) {
    const columns = named.filter(({ key }) => entries.some((entry) => !missing(key(entry)))); // without unmeasured ones
    const part = (id) => byId(`${name}-${id}`);
    const [table, search, more, none, single] = ["table", "search", "more", "none", "one"].map(part);
    const selects = Object.entries(menus).map(([id, menu]) => ({ ...menu, select: part(id) }));
    const [heads, body] = [table.tHead.rows[0], table.tBodies[0]];
    const texts = new Map();
    let order = entries;
    let visible = [];

    function matches(entry, terms) {
      if (!selects.every(({ select, has }) => select.value === "" || has(entry, select.value))) return false;
      return terms.every((term) => {
        if (names(entry).includes(term)) return true;
        if (NEURON.test(term)) return false;
        if (!texts.has(entry)) texts.set(entry, text(entry).toLowerCase());
        return texts.get(entry).includes(term);
      });
    }

    function update() {
      const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      visible = order.filter((entry) => matches(entry, terms));
      body.replaceChildren();
      show();
      part("count").textContent = counted(visible.length, noun);
      none.hidden = visible.length > 0;
      const chosen = selects.filter(({ select }) => select.value !== "").map(({ select }) => select.selectedOptions[0].textContent);
      const where = chosen.length === 0 ? "" : ` in ${chosen.join(", ")}`;
      const all = make("p", {}, link(name, "", `All ${counted(entries.length, noun)}`));
      single.replaceChildren(...(visible.length === 1 ? [...one(visible[0]), all] : []));
      single.hidden = visible.length !== 1;
      table.hidden = visible.length < 2;
      none.textContent = `No ${noun}s${where} match “${search.value.trim()}”. `
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
    for (const { select, options } of selects) {
      select.add(new Option(`all ${options.length}`, ""));
      for (const [value, label] of options) select.add(new Option(label, value));
      select.addEventListener("change", update);
    }
    search.addEventListener("input", update);
    search.form.addEventListener("submit", (event) => event.preventDefault());
    more.addEventListener("click", show);
    browsers[name] = (query) => {
      for (const { select } of selects) select.value = "";
      search.value = query;
      update();
      search.form.scrollIntoView();
      (single.hidden ? search : single).focus({ preventScroll: true });
    };
    part("browser").hidden = false;
    update();
  }

  function follow() {
    const [, name, query] = location.hash.match(/^#(\w+)=(.*)$/) || [];
    if (name in browsers) browsers[name](decodeURIComponent(query));
  }
  window.addEventListener("hashchange", follow);
  window.addEventListener("DOMContentLoaded", follow);

  // A link to the entries of a browser that have a text or a name; plain text if the page has no such browser.
  const link = (name, query, shown = query) =>
    byId(name) ? make("a", { href: `#${name}=${encodeURIComponent(query)}`, textContent: shown }) : shown;
  // Data of the page; parsed when they are first needed.
  function json(id) {
    if (!parsed.has(id)) parsed.set(id, JSON.parse(byId(id).textContent));
    return parsed.get(id);
  }
  const minus = (text) => text.replace("-", "\u2212");
  const percent = (value) => (value === null ? "" : minus(`${value > 0 ? "+" : ""}${(100 * value).toFixed(1)}\u00a0%`));
  const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  return { browse, link, json, make, minus, percent, counted };
})();
