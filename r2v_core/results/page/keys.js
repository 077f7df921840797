// Keys. Single letters work anywhere but in a text field or a select; they can be switched off in the help.

function startKeys(actions) {
  const help = byId("help");
  byId("help-button").addEventListener("click", () => help.showModal());
  byId("help-close").addEventListener("click", () => help.close());
  byId("key-list").append(...actions.flatMap(({ label, keys }) => [el("dt", {}, keys.map((key) => el("kbd", {}, KEY_NAMES[key] ?? key))), el("dd", {}, label)]));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") {
        event.preventDefault(); // a search field would be emptied
        event.target.blur();
      }
      return;
    }
    if (!byId("keys-on").checked) return;
    const action = actions.find(({ keys }) => keys.includes(event.key));
    if (!action) return;
    event.preventDefault();
    action.run();
  });
}

const KEY_NAMES = { ArrowLeft: "←", ArrowRight: "→" };
