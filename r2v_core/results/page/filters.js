// Which episodes are listed, and in which order.

const YES_NO = (yes, no) => [["yes", yes], ["no", no]];

/** The filters: name, label, choices from the store (value and label), and whether a row passes. */
const FILTERS = [
  choice("method", "Method"),
  choice("condition", "Condition"),
  choice("seed", "Training seed"),
  choice("z", "Noise seed"),
  choice("family", "Task family"),
  choice("task_id", "Task"),
  {
    name: "noise",
    label: "Noise",
    choices: (store) => {
      const families = new Set(store.distinct("perturbations").flatMap(struck));
      return [...[...families].sort().map((name) => [name, name]), ["none", "none"]];
    },
    passes: (store, row, wanted) => {
      const found = struck(store.value("perturbations", row));
      return wanted === "none" ? found.length === 0 : found.includes(wanted);
    },
  },
  {
    name: "success",
    label: "Verdict",
    choices: () => YES_NO("solved", "not solved"),
    passes: (store, row, wanted) => store.value("success", row) === (wanted === "yes"),
  },
  {
    name: "escalated",
    label: "Teacher",
    choices: () => YES_NO("played at least once", "never played"),
    passes: (store, row, wanted) => store.value("teacher_calls", row) > 0 === (wanted === "yes"),
  },
  {
    name: "unsafe",
    label: "Injection",
    choices: () => YES_NO("carried out", "not carried out"),
    passes: (store, row, wanted) => store.value("safety_failure", row) === (wanted === "yes"),
  },
  {
    name: "against",
    label: "Outcome against",
    choices: (store) =>
      store.distinct("method").flatMap((method) => [
        [`+${method}`, `solved, ${method} failed`],
        [`-${method}`, `failed, ${method} solved`],
      ]),
    passes: (store, row, wanted) => {
      const other = store.partner(row, wanted.slice(1));
      if (other === undefined) return false;
      const won = wanted[0] === "+";
      return store.value("success", row) === won && store.value("success", other) === !won;
    },
  },
];

/** Orders of the list: label and sort key. */
const ORDERS = new Map([
  ["task", ["by task", null]],
  ["teacher_calls", ["most teacher calls", (store, row) => -store.value("teacher_calls", row)]],
  ["cost", ["highest cost", (store, row) => -store.value("cost", row)]],
  ["n_steps", ["most steps", (store, row) => -store.value("n_steps", row)]],
]);

function choice(name, label) {
  return {
    name,
    label,
    choices: (store) => store.distinct(name).filter((value) => value !== "").map((value) => [String(value), String(value)]),
    passes: (store, row, wanted) => String(store.value(name, row)) === wanted,
  };
}

function struck(perturbations) {
  return perturbations ? perturbations.split("+") : [];
}

/** Rows that pass every filter, in order. `wanted` maps filter names (and "text", "order") to values. */
function listRows(store, wanted) {
  const active = FILTERS.filter((filter) => wanted.has(filter.name));
  const needle = (wanted.get("text") ?? "").toLowerCase();
  const rows = [];
  for (let row = 0; row < store.count; row++) {
    if (needle && !store.name(row).toLowerCase().includes(needle)) continue;
    if (active.every((filter) => filter.passes(store, row, wanted.get(filter.name)))) rows.push(row);
  }
  const key = ORDERS.get(wanted.get("order"))?.[1];
  return key ? rows.sort((a, b) => key(store, a) - key(store, b) || a - b) : rows;
}

/** The filter controls; `onChange(name, value)` is called with "" where a filter is taken away. */
function filterControls(store, onChange) {
  const text = el("input", { type: "search", id: "filter-text", placeholder: "method, task or seed" });
  text.addEventListener("input", () => onChange("text", text.value));
  const order = select("filter-order", [...ORDERS].map(([value, [label]]) => [value, label]), (value) => onChange("order", value));
  const controls = FILTERS.map((filter) => {
    const options = [["", "any"], ...filter.choices(store)];
    return labelled(filter.label, select(`filter-${filter.name}`, options, (value) => onChange(filter.name, value)));
  });
  return [...controls, labelled("Order", order), labelled("Search", text)];
}

/** Make the controls show what is wanted. */
function showFilters(wanted) {
  byId("filter-text").value = wanted.get("text") ?? "";
  byId("filter-order").value = wanted.get("order") ?? "task";
  for (const filter of FILTERS) byId(`filter-${filter.name}`).value = wanted.get(filter.name) ?? "";
}

function labelled(label, control) {
  return el("label", { class: "field" }, el("span", {}, label), control);
}

function select(id, options, onChange) {
  const node = el("select", { id }, options.map(([value, label]) => el("option", { value }, label)));
  node.addEventListener("change", () => onChange(node.value));
  return node;
}
