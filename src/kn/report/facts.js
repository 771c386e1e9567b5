"use strict";
// The browser of facts.
{
  const data = Tables.json("facts-data");
  const at = Object.fromEntries(data.columns.map((name, index) => [name, index]));
  const nothing = "";
  const number = (text) => text.replace("-", "\u2212");
  const percent = (value) => (value === null ? nothing : number((value > 0 ? "+" : "") + (100 * value).toFixed(1)) + " %");
  const probability = (value) =>
    value === null ? nothing : value >= 0.001 || value === 0 ? value.toFixed(3) : number(value.toExponential(1));
  const names = (fact) => {
    const flat = fact[at.neurons] || [];
    return flat.filter((_, index) => index % 2 === 0).map((layer, index) => `${layer}.${flat[2 * index + 1]}`);
  };
  const prompt = (end) => ({ fact }) =>
    fact[at[end]] === null
      ? nothing
      : [fact[at[end]] + " ", Object.assign(document.createElement("small"), { textContent: probability(fact[at[`${end} probability`]]) })];
  const measure = (name, show) => ({ key: ({ fact }) => fact[at[name]], show: ({ fact }) => show(fact[at[name]]) });

  const entries = Object.entries(data.relations).flatMap(([group, { label, facts }], order) =>
    facts.map((fact, place) => ({ group, label, order, place, fact })));
  Tables.browse("facts", {
    entries,
    noun: "facts",
    groups: Object.entries(data.relations).map(([relation, { label, facts }]) => [relation, `${label}, ${facts.length}`]),
    text: ({ label, fact }) => [label, fact[at.answer], fact[at.best], fact[at.worst]].join(" "),
    neurons: ({ fact }) => names(fact),
    columns: [
      { name: "relation", key: ({ order }) => order, show: ({ label }) => label, width: 9 },
      { name: "fact", key: ({ place }) => place, show: ({ place }) => String(place), width: 4.5, number: true },
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
        key: ({ fact }) => names(fact).join(" "),
        show: ({ fact }) => names(fact).flatMap((name) => [Tables.link("neurons", name), " "]),
        width: 10.5,
        wide: true,
      },
      { name: "best prompt", key: ({ fact }) => fact[at["best probability"]], show: prompt("best"), width: 15, wide: true },
      { name: "worst prompt", key: ({ fact }) => fact[at["worst probability"]], show: prompt("worst"), width: 15, wide: true },
    ],
  });
}
