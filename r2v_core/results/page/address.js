// What is shown, as the part of the page's address after '#', so that a link leads back to it and Back works.

/** {view, filters, episode, against, step, text} from the address; unknown parts are ignored. */
function readAddress() {
  const [view, query = ""] = location.hash.slice(1).split("?");
  const params = new URLSearchParams(query);
  const filters = new Map();
  for (const name of [...FILTERS.map((filter) => filter.name), "text", "order"]) {
    if (params.get(name)) filters.set(name, params.get(name));
  }
  return {
    view: view === "episodes" ? "episodes" : "report",
    anchor: view,
    filters,
    episode: params.get("episode"),
    beside: params.get("beside"),
    step: Math.max(0, (Number.parseInt(params.get("step") ?? "1", 10) || 1) - 1),
    shown: ["marked", "seen", "clean"].includes(params.get("shown")) ? params.get("shown") : "marked",
  };
}

/** The address of a state; the opposite of readAddress. */
function addressOf({ filters, episode, beside, step, shown }) {
  const params = new URLSearchParams([...filters]);
  if (episode) params.set("episode", episode);
  if (beside) params.set("beside", beside);
  if (step) params.set("step", String(step + 1));
  if (shown !== "marked") params.set("shown", shown);
  return `#episodes${params.size ? `?${params}` : ""}`;
}

const ADDRESS_DELAY = 400; // ms; browsers refuse an address that changes with every repeat of a held key
let pendingAddress = 0;

/** Let the address follow the state, a moment later. */
function writeAddress(shownState) {
  const address = addressOf(shownState);
  byId("to-episodes").setAttribute("href", address); // leads back here from the report
  clearTimeout(pendingAddress);
  pendingAddress = setTimeout(() => {
    if (!location.hash.startsWith("#episodes")) return; // the reader went back to the report meanwhile
    history.replaceState(null, "", address);
  }, ADDRESS_DELAY);
}
