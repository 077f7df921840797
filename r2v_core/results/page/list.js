// The list of episodes: thousands of rows, of which only those in sight are elements.

const ROW_HEIGHT = 46; // pixels; the same in page.css
const SPARE_ROWS = 8; // drawn above and below what is in sight

class EpisodeList {
  /** `box` scrolls; `onSelect(row)` is called when the reader picks an episode. */
  constructor(store, box, onSelect) {
    this.store = store;
    this.box = box;
    this.onSelect = onSelect;
    this.rows = [];
    this.selected = null;
    this.canvas = el("div", { class: "canvas", role: "presentation" });
    box.append(this.canvas);
    box.addEventListener("scroll", () => this.draw());
    box.addEventListener("keydown", (event) => this.onKey(event));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  /** List these rows of the store. */
  show(rows) {
    this.rows = rows;
    this.canvas.style.height = `${rows.length * ROW_HEIGHT}px`;
    this.box.scrollTop = 0;
    this.select(this.selected);
  }

  /** Mark a row of the store and bring it into sight, without calling back. */
  select(row) {
    this.selected = row;
    const at = this.rows.indexOf(row);
    if (at >= 0) {
      const top = at * ROW_HEIGHT;
      const height = this.box.clientHeight;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      if (top + ROW_HEIGHT > this.box.scrollTop + height) this.box.scrollTop = top + ROW_HEIGHT - height;
    }
    this.draw();
  }

  /** Pick the episode that stands `by` rows further down. */
  move(by) {
    if (!this.rows.length) return;
    const at = this.rows.indexOf(this.selected);
    const next = at < 0 ? 0 : Math.min(Math.max(at + by, 0), this.rows.length - 1);
    this.onSelect(this.rows[next]);
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW_HEIGHT) - 1);
    const far = this.rows.length;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -far, End: far };
    if (!(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.move(steps[event.key]);
  }

  draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const end = Math.min(this.rows.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW_HEIGHT) + SPARE_ROWS);
    this.canvas.replaceChildren(...this.rows.slice(first, end).map((row, i) => this.item(row, first + i)));
    const shown = this.canvas.querySelector("[aria-selected=true]");
    if (shown) this.box.setAttribute("aria-activedescendant", shown.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  item(row, position) {
    const get = (column) => this.store.value(column, row);
    const calls = get("teacher_calls") ? `${get("teacher_calls")} by teacher` : "no teacher";
    const node = el(
      "div",
      {
        class: "item",
        id: `row-${row}`,
        role: "option",
        "aria-selected": String(row === this.selected),
        "aria-setsize": this.rows.length,
        "aria-posinset": position + 1,
      },
      verdictMark(get("success")),
      el("span", { class: "item-main" }, el("b", {}, get("method")), ` ${get("task_id")}`),
      el("span", { class: "item-sub" }, `${situationText(this.store, row)} · ${plural(get("n_steps"), "step")}, ${calls}`),
      get("safety_failure") ? el("span", { class: "tag bad", title: "carried out an injected instruction" }, "unsafe") : null,
    );
    node.style.transform = `translateY(${position * ROW_HEIGHT}px)`;
    node.addEventListener("click", () => this.onSelect(row));
    return node;
  }
}

/** The verdict as a mark that doesn't depend on colour. */
function verdictMark(success) {
  const label = success ? "solved" : "not solved";
  return el("span", { class: `mark ${success ? "good" : "bad"}`, role: "img", "aria-label": label, title: label }, success ? "✓" : "✗");
}

/** Condition, training seed, noise seed and replicate in a few words. */
function situationText(store, row) {
  const condition = store.value("condition", row);
  const z = store.value("z", row);
  const replicate = store.value("replicate", row);
  const situation = condition === "clean" ? `clean, replicate ${z}` : `${condition}, z ${z}${replicate ? `, replicate ${replicate}` : ""}`;
  return `seed ${store.value("seed", row)} · ${situation}`;
}
