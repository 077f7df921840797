// Light, dark, or what the reader's system says; remembered where the browser lets a file remember anything.

const THEMES = ["auto", "light", "dark"];

function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme").value = name;
  try {
    localStorage.setItem("r2v-theme", name);
  } catch {
    // private window: for this visit only
  }
}

function startTheme() {
  let kept = null;
  try {
    kept = localStorage.getItem("r2v-theme");
  } catch {
    // nothing kept
  }
  setTheme(THEMES.includes(kept) ? kept : "auto");
  byId("theme").addEventListener("change", (event) => setTheme(event.target.value));
}

function nextTheme() {
  setTheme(THEMES[(THEMES.indexOf(byId("theme").value) + 1) % THEMES.length]);
}
