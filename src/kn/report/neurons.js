"use strict";
// The browser of neurons. A neuron is named layer.neuron.
const Neurons = (() => {
  const AT_ONCE = 8; // facts of a relation
  const { make, link, minus, percent, counted } = Tables;
  const { relations } = Facts.data;
  const names = Object.keys(relations); // of relations
  const data = Tables.json("neurons-data");
  const at = Object.fromEntries(data.columns.map((name, index) => [name, index]));

  const entries = data.neurons.map((neuron) => ({ neuron, name: `${neuron[at.layer]}.${neuron[at.index]}` }));
  const named = (name) => entries.find((entry) => entry.name === name);

  // The facts of a neuron: by relation, pairs of fact and change without this neuron.
  function factsOf({ neuron }) {
    const [layer, index] = [neuron[at.layer], neuron[at.index]];
    return new Map(neuron[at.relations].map((number) => {
      const relation = names[number];
      const found = relations[relation].facts.flatMap((fact, place) => {
        const flat = fact[Facts.at.neurons] || [];
        for (let own = 0; own < flat.length; own += 2)
          if (flat[own] === layer && flat[own + 1] === index) return [[place, change(relation, place, own / 2)]];
        return [];
      });
      return [relation, found];
    }));
  }

  // Of the fact's probability, without a neuron of it.
  function change(relation, place, index) {
    const without = data.without[relation][place];
    return without ? without[index] : null;
  }
  const words = ({ neuron }, end) => neuron[at[end]].join(" \u00b7 ");

  // A neuron of a fact.
  function item(name, relation, place, index) {
    const [without, more] = [percent(change(relation, place, index)), words(named(name), "more")];
    return make("li", {}, link("neurons", name), ` ${without} `, make("small", {}, more && `more probable: ${more}`));
  }

  // A relation's facts of a neuron, those that lose most first.
  function ofRelation(relation, facts) {
    const items = [...facts]
      .sort(([, a], [, b]) => a - b)
      .map(([fact, without]) =>
        make("li", {}, `${percent(without)} `, link("facts", `${relation}-${fact}`, Facts.said(relation, fact))));
    const first = items.splice(0, AT_ONCE);
    const rest = items.length ? [make("details", {}, make("summary", {}, `${items.length} more`), make("ul", {}, ...items))] : [];
    return [make("h4", {}, `${relations[relation].label}, ${counted(facts.length, "fact")}`), make("ul", {}, ...first), ...rest];
  }

  // The answer, which was masked, is a link to its fact.
  function sentence(facts, [activation, number, fact, text]) {
    const relation = names[number];
    const [before, after] = Tables.json("texts-data")[text].split("[MASK]");
    const isOwn = (facts.get(relation) || []).some(([own]) => own === fact);
    const answer = relations[relation].facts[fact][Facts.at.answer];
    return make(
      "li", {}, before, make("mark", {}, link("facts", `${relation}-${fact}`, answer)), after, " ",
      make("small", {}, `activation ${minus(String(activation))}${isOwn ? "" : ", not one of its facts"}`));
  }

  function one(entry) {
    const { neuron, name } = entry;
    const facts = factsOf(entry);
    const without = percent(neuron[at.without]);
    const about = [
      make("p", {}, `Layer ${neuron[at.layer]}. A knowledge neuron of ${counted(neuron[at.facts], "fact")} of ${counted(facts.size, "relation")}.`,
        ...(without ? [" Without this neuron alone, the answers' probability changes by ", make("strong", {}, without), "."] : [])),
    ];
    if (neuron[at.more].length)
      about.push(
        make("p", {}, "More probable: ", make("strong", {}, words(entry, "more"))),
        make("p", {}, "Less probable: ", words(entry, "less")));
    if (neuron[at.sentences].length)
      about.push(
        make("h4", {}, "Crawled sentences at which it is most active, with the marked word masked"),
        make("ul", {}, ...neuron[at.sentences].map((found) => sentence(facts, found))));
    const byCount = [...facts].sort(([, a], [, b]) => b.length - a.length);
    return [
      make("h3", {}, `Neuron ${name}`),
      make("div", { className: "columns" }, make("div", {}, ...about),
        make("div", {}, ...byCount.flatMap(([relation, places]) => ofRelation(relation, places)))),
    ];
  }

  const layers = [...new Set(data.neurons.map((neuron) => neuron[at.layer]))];
  const column = (name, key, width) => ({ name, key, show: (entry) => String(key(entry)), width, number: true });
  const wordColumn = (name, end) => {
    const key = (entry) => words(entry, end);
    return { name, key, show: key, width: 33, wide: true };
  };
  Tables.browse("neurons", {
    entries,
    one,
    noun: "neuron",
    menus: {
      menu: {
        options: names.map((name) => [name, relations[name].label]),
        has: ({ neuron }, name) => neuron[at.relations].includes(names.indexOf(name)),
      },
      layer: {
        options: layers.map((layer) => [layer, layer]),
        has: ({ neuron }, layer) => neuron[at.layer] === Number(layer),
      },
    },
    text: ({ neuron }) =>
      [...neuron[at.more], ...neuron[at.less], ...neuron[at.relations].map((number) => relations[names[number]].label)].join(" "),
    names: ({ name }) => [name],
    columns: [
      {
        name: "neuron",
        key: ({ neuron }) => neuron[at.layer] * 1e6 + neuron[at.index],
        show: ({ name }) => link("neurons", name),
        width: 9,
      },
      column("facts", ({ neuron }) => neuron[at.facts], 7),
      column("relations", ({ neuron }) => neuron[at.relations].length, 8.5),
      { ...column("without it", ({ neuron }) => neuron[at.without], 9.5), show: ({ neuron }) => percent(neuron[at.without]) },
      wordColumn("more probable", "more"),
      wordColumn("less probable", "less"),
    ],
  });
  return { item };
})();
