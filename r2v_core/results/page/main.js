// The episode browser: every control changes the state, the state is drawn, and the address follows it.

const page = Object.fromEntries(
  Object.entries(JSON.parse(byId("page-facts").textContent)).map(([name, notes]) => [name, new Map(Object.entries(notes))]),
);
let state = readAddress();
let store = null;
let list = null;
const columns = [];
let drawn = 0; // number of the latest drawing, so that an older one that waited for a shard gives up

/** Change the state and draw it. */
function go(change) {
  state = { ...state, ...change, view: "episodes" };
  show();
}

function openRow(row) {
  go({ episode: store.name(row), step: 0 });
}

/** Draw the state. */
async function show() {
  const browsing = state.view === "episodes";
  byId("view-report").hidden = browsing;
  byId("view-episodes").hidden = !browsing;
  markCurrent(byId("to-report"), !browsing);
  markCurrent(byId("to-episodes"), browsing);
  if (!browsing) {
    if (state.anchor) byId(state.anchor)?.scrollIntoView();
    return;
  }
  const drawing = ++drawn;
  byId("view-episodes").setAttribute("aria-busy", "true");
  try {
    await start();
    showList();
    await showEpisode(drawing);
  } catch (error) {
    byId("count").textContent = `The episodes can't be shown (${error}). The file may be damaged, or the browser too old.`;
    throw error;
  }
  if (drawing !== drawn) return;
  writeAddress(state);
  byId("view-episodes").setAttribute("aria-busy", "false");
}

function markCurrent(link, current) {
  if (current) link.setAttribute("aria-current", "page");
  else link.removeAttribute("aria-current");
}

let started = null;

/** Unpack the index and make the controls, once. */
function start() {
  started ??= (async () => {
    store = new Store(await unpack("episode-index"));
    const setFilter = (name, value) => {
      const filters = new Map(state.filters);
      if (value) filters.set(name, value);
      else filters.delete(name);
      go({ filters });
    };
    byId("filters").append(...filterControls(store, setFilter));
    byId("reset").addEventListener("click", () => go({ filters: new Map() }));
    byId("filters-box").open = innerWidth > 960;
    list = new EpisodeList(store, byId("list"), openRow);
    for (const id of ["first", "second"]) {
      const column = new EpisodeColumn(store, page, (step) => go({ step }));
      columns.push(column);
      byId(id).append(column.node);
    }
  })();
  return started;
}

let listed = null;

function showList() {
  const key = JSON.stringify([...state.filters]);
  const chosen = store.rows.get(state.episode) ?? null;
  if (key !== listed) {
    listed = key;
    showFilters(state.filters);
    const rows = listRows(store, state.filters);
    list.selected = chosen;
    list.show(rows);
    byId("count").textContent = `${rows.length.toLocaleString("en")} of ${plural(store.count, "episode")}`;
    byId("reset").disabled = state.filters.size === 0;
  } else {
    list.select(chosen);
  }
  if (chosen === null && list.rows.length) {
    state = { ...state, episode: store.name(list.rows[0]), step: 0 };
    list.select(list.rows[0]);
  }
}

async function showEpisode(drawing) {
  const row = store.rows.get(state.episode);
  byId("detail").hidden = row === undefined;
  if (row === undefined) return;
  const [first, second] = columns;
  const beside = state.beside === store.value("method", row) ? null : state.beside;
  const other = beside ? store.partner(row, beside) : undefined;
  const ready = await Promise.all([first.open(row), other === undefined ? true : second.open(other)]);
  if (drawing !== drawn || ready.includes(false)) return;
  byId("task").textContent = store.value("task_id", row);
  byId("situation").textContent = [situationText(store, row), store.value("family", row)].filter(Boolean).join(" · ");
  byId("goal").textContent = first.episode.goal;
  showChoices(row, beside);
  const parting = other === undefined ? null : partingStep(first.episode, second.episode);
  const longest = Math.max(first.episode.steps.length, other === undefined ? 0 : second.episode.steps.length);
  state = { ...state, step: Math.max(0, Math.min(state.step, longest - 1)) };
  first.draw(state.step, state.shown, parting);
  byId("second").hidden = other === undefined;
  byId("columns").classList.toggle("two", other !== undefined);
  if (other !== undefined) second.draw(state.step, state.shown, parting);
  byId("parting").replaceChildren(...partingNote(beside, other, parting));
}

function partingNote(beside, other, parting) {
  if (other === undefined) return beside ? [`${beside} did not play this task under this noise.`] : [];
  if (parting === null) return ["Both took the same actions."];
  return [button({ class: "link" }, () => go({ step: parting }), `Paths part at step ${parting + 1}`)];
}

/** The method, comparison and view controls of the open episode. */
function showChoices(row, other) {
  const method = store.value("method", row);
  const beside = store.methodsBeside(row);
  fill(byId("method"), beside.map((name) => [name, name]), method);
  fill(byId("beside"), [["", "nothing"], ...beside.filter((name) => name !== method).map((name) => [name, name])], other ?? "");
  byId("shown").value = state.shown;
}

function fill(node, options, value) {
  node.replaceChildren(...options.map(([name, label]) => el("option", { value: name }, label)));
  node.value = value;
}

function step(by) {
  go({ step: Math.max(state.step + by, 0) }); // drawing stops at the last one
}

function nextBeside(by) {
  const names = [...byId("beside").options].map((option) => option.value);
  const at = names.indexOf(byId("beside").value);
  go({ beside: names[(at + by + names.length) % names.length] || null });
}

function openMethod(name) {
  const row = store.partner(store.rows.get(state.episode), name);
  go({ episode: store.name(row), beside: name === state.beside ? null : state.beside });
}

const inEpisodes = (run) => () => {
  if (state.view === "episodes" && columns[0]?.episode) run();
};

const ACTIONS = [
  { keys: ["j"], label: "next episode of the list", run: inEpisodes(() => list.move(1)) },
  { keys: ["k"], label: "previous episode", run: inEpisodes(() => list.move(-1)) },
  { keys: ["ArrowRight", "l"], label: "next step", run: inEpisodes(() => step(1)) },
  { keys: ["ArrowLeft", "h"], label: "previous step", run: inEpisodes(() => step(-1)) },
  { keys: ["Home"], label: "first step", run: inEpisodes(() => step(-1e6)) },
  { keys: ["End"], label: "last step", run: inEpisodes(() => step(1e6)) },
  { keys: ["c"], label: "compare with the next method, in the end with nothing", run: inEpisodes(() => nextBeside(1)) },
  { keys: ["C"], label: "compare with the previous method", run: inEpisodes(() => nextBeside(-1)) },
  { keys: ["p"], label: "go to the step where the two paths part", run: inEpisodes(() => byId("parting").querySelector("button")?.click()) },
  { keys: ["v"], label: "marked, as seen, clean", run: inEpisodes(() => go({ shown: { marked: "seen", seen: "clean", clean: "marked" }[state.shown] })) },
  { keys: ["/"], label: "search", run: inEpisodes(() => byId("filter-text").focus()) },
  { keys: ["e"], label: "between the report and the episodes", run: () => byId(state.view === "episodes" ? "to-report" : "to-episodes").click() },
  { keys: ["t"], label: "light, dark, or as the system says", run: nextTheme },
  { keys: ["?"], label: "this help", run: () => byId("help").showModal() },
];

startTheme();
startKeys(ACTIONS);
byId("method").addEventListener("change", (event) => openMethod(event.target.value));
byId("beside").addEventListener("change", (event) => go({ beside: event.target.value || null }));
byId("shown").addEventListener("change", (event) => go({ shown: event.target.value }));
addEventListener("hashchange", () => {
  state = readAddress();
  show();
});
show();
