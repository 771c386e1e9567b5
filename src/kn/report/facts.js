"use strict";
// The browser of facts. A fact is named like P36-12: the relation, and the fact's number in it.
const Facts = (() => {
  const MASKS = /(\[MASK\]|<mask>)( ?\1)*/;
  const { make, link, minus, percent } = Tables;
  const data = Tables.json("facts-data");
  const at = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const nothing = "";
  const probability = (value) =>
    value === null ? nothing : value >= 0.001 || value === 0 ? value.toFixed(3) : minus(value.toExponential(1));
  const neurons = (fact) => {
    const flat = fact[at.neurons] || [];
    return flat.filter((_, index) => index % 2 === 0).map((layer, index) => `${layer}.${flat[2 * index + 1]}`);
  };
  const prompt = (end) => ({ fact }) =>
    fact[at[end]] === null ? nothing : [`${fact[at[end]]} `, make("small", {}, probability(fact[at[`${end} probability`]]))];
  const measure = (name, show) => ({ key: ({ fact }) => fact[at[name]], show: ({ fact }) => show(fact[at[name]]) });

  const entries = Object.entries(data.relations).flatMap(([group, { label, facts }], order) =>
    facts.map((fact, place) => ({ group, label, order, place, fact })));

  // A fact in words: its best prompt with the answer. Causal models are asked for what comes next, and their prompts
  // end with all pieces of the answer but the last.
  function said(group, place) {
    const fact = data.relations[group].facts[place];
    const [answer, text] = [fact[at.answer], fact[at.best]];
    if (text === null) return answer;
    if (MASKS.test(text)) return text.replace(MASKS, () => answer);
    for (let length = answer.length - 1; length > 0; length -= 1)
      if (text.endsWith(` ${answer.slice(0, length)}`)) return text.slice(0, -length) + answer;
    return `${text} ${answer}`;
  }

  function one(entry) {
    const { group, label, place, fact } = entry;
    const about = [
      ["probability", probability(fact[at.probability])],
      ["predicted", `in ${fact[at.right]} of ${Tables.counted(fact[at.prompts], "prompt")}`],
      ["suppressed", percent(fact[at.suppressed])],
      ["amplified", percent(fact[at.amplified])],
      ["best prompt", prompt("best")(entry)],
      ["worst prompt", prompt("worst")(entry)],
    ].filter(([, value]) => value !== nothing);
    const own = neurons(fact).map((name, index) =>
      typeof Neurons === "undefined" ? make("li", {}, name) : Neurons.item(name, group, place, index));
    return [
      make("h3", {}, `${fact[at.answer]}, ${label}, fact ${place}`),
      make("dl", {}, ...about.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, ...[value].flat())])),
      make("h4", {}, own.length ? "Its neurons, and how the probability changes without each" : "It has no neurons"),
      make("ul", {}, ...own),
    ];
  }

  Tables.browse("facts", {
    entries,
    one,
    noun: "fact",
    menus: {
      menu: {
        options: Object.entries(data.relations).map(([relation, { label, facts }]) => [relation, `${label}, ${facts.length}`]),
        has: (entry, relation) => entry.group === relation,
      },
    },
    text: ({ label, fact }) => [label, fact[at.answer], fact[at.best], fact[at.worst]].join(" "),
    names: ({ group, place, fact }) => [`${group}-${place}`.toLowerCase(), ...neurons(fact)],
    columns: [
      { name: "relation", key: ({ order }) => order, show: ({ label }) => label, width: 9 },
      {
        name: "fact",
        key: ({ place }) => place,
        show: ({ group, place }) => link("facts", `${group}-${place}`, String(place)),
        width: 4.5,
        number: true,
      },
      { name: "answer", ...measure("answer", String), width: 10 },
      { name: "probability", ...measure("probability", probability), width: 8.5, number: true },
      {
        name: "right",
        key: ({ fact }) => (fact[at.prompts] ? fact[at.right] / fact[at.prompts] : null),
        show: ({ fact }) => `${fact[at.right]}/${fact[at.prompts]}`,
        width: 5.5,
        number: true,
      },
      { name: "suppressed", ...measure("suppressed", percent), width: 8.5, number: true },
      { name: "amplified", ...measure("amplified", percent), width: 8, number: true },
      {
        name: "count",
        key: ({ fact }) => fact[at.neurons] && fact[at.neurons].length / 2,
        show: ({ fact }) => (fact[at.neurons] ? String(fact[at.neurons].length / 2) : nothing),
        width: 5.5,
        number: true,
      },
      {
        name: "neurons",
        key: ({ fact }) => (fact[at.neurons]?.length ? 1e7 * fact[at.neurons][0] + fact[at.neurons][1] : null), // the first
        show: ({ fact }) => neurons(fact).flatMap((name) => [link("neurons", name), " "]),
        width: 10.5,
        wide: true,
      },
      { name: "best prompt", key: ({ fact }) => fact[at["best probability"]], show: prompt("best"), width: 15, wide: true },
      { name: "worst prompt", key: ({ fact }) => fact[at["worst probability"]], show: prompt("worst"), width: 15, wide: true },
    ],
  });
  return { data, at, said };
})();
