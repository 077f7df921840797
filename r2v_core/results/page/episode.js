// One episode as a column: its facts, a strip with one button a step, and the panel of the chosen step.

class EpisodeColumn {
  /** `onStep(at)` is called when the reader picks a step. */
  constructor(store, page, onStep) {
    this.store = store;
    this.page = page;
    this.onStep = onStep;
    this.node = el("article", { class: "episode" });
    this.row = null;
    this.episode = null;
  }

  /** Load and show an episode of the store. Returns false if another one was asked for meanwhile. */
  async open(row) {
    this.row = row;
    const episode = await this.store.episode(row);
    if (this.row !== row) return false;
    this.episode = episode;
    return true;
  }

  /** Draw step `at` (the last one where the episode is shorter); `parting` is the step at which two paths part. */
  draw(at, view, parting) {
    const { episode, row, store } = this;
    const last = episode.steps.length - 1;
    const here = Math.min(at, last);
    const method = store.value("method", row);
    const focused = this.node.querySelector(".strip")?.contains(document.activeElement);
    const unfolded = this.node.querySelector("details")?.open;
    this.node.setAttribute("aria-label", `Episode of ${method}`);
    if (last < 0) {
      this.node.replaceChildren(this.header(), el("p", { class: "muted" }, "No step was played."));
      return;
    }
    this.node.replaceChildren(
      this.header(),
      this.strip(here, parting),
      el("p", { class: "where" }, `Step ${here + 1} of ${last + 1}`, at > last ? el("span", { class: "muted" }, " (the episode ended earlier than the other)") : null),
      stepPanel(episode, here, method, this.page, view),
    );
    if (focused) this.node.querySelector("[aria-current]").focus();
    if (unfolded) this.node.querySelector("details")?.setAttribute("open", "");
  }

  header() {
    const get = (column) => this.store.value(column, this.row);
    const facts = [
      plural(get("n_steps"), "step"),
      `${get("teacher_calls")} by the teacher`,
      `cost ${units(get("cost"))} units`,
      get("error") ? "ended in an error" : get("truncated") ? "cut at the step limit" : "ended by the benchmark",
    ];
    return el(
      "header",
      {},
      el("h3", {}, verdictMark(get("success")), ` ${get("method")}`, el("span", { class: "verdict" }, get("success") ? " solved it" : " did not solve it")),
      el("p", { class: "muted" }, this.page.methods.get(get("method")) ?? ""),
      el("p", { class: "facts" }, facts.join(" · "), get("safety_failure") ? el("span", { class: "tag bad" }, "unsafe") : null,
        get("flagged") ? el("span", { class: "tag bad" }, "verdict in doubt") : null),
    );
  }

  /** A button a step: how high the risk score stood against its threshold, who acted, what came of it. */
  strip(here, parting) {
    const steps = this.episode.steps;
    const scores = steps.flatMap(({ decision }) => [decision?.probability ?? 0, decision?.threshold ?? 0]);
    const top = Math.max(1, ...scores.map((score) => 1.1 * score));
    return el("div", { class: "strip", role: "group", "aria-label": "Steps" }, steps.map((step, at) => this.stepButton(step, at, here, top, at === parting)));
  }

  stepButton(step, at, here, top, parts) {
    const [letter, actor] = ACTORS.get(step.actor) ?? ["?", step.actor];
    const [mark, words_, good] = outcomeOf(step);
    const struckBy = step.noise.map(({ family }) => family).join(", ");
    const tone = good === null ? "" : good ? " good" : " bad";
    const label = [`Step ${at + 1}`, `${actor}: ${headline(step.action)}`, words_, struckBy && `noise: ${struckBy}`, parts && "here the two part"];
    return button(
      {
        class: `chip ${step.actor}${parts ? " parting" : ""}`,
        "aria-current": at === here ? "step" : null,
        tabindex: at === here ? 0 : -1, // the arrow keys go from step to step
        "aria-label": label.filter(Boolean).join(", "),
        title: label.filter(Boolean).join("\n"),
      },
      () => this.onStep(at),
      riskBar(step.decision, top),
      el("span", { class: `actor ${step.actor}` }, letter),
      el("span", { class: `mark${tone}` }, mark),
      el("span", { class: "struck" }, step.noise.length ? "≈" : "\u00a0"),
    );
  }
}

function riskBar(decision, top) {
  const y = (value) => 30 - 30 * Math.min(1, value / top);
  const p = decision?.probability ?? null;
  const threshold = decision?.threshold ?? null;
  return svg(
    "svg",
    { class: "risk", viewBox: "0 0 20 30", "aria-hidden": "true" },
    p === null ? null : svg("rect", { class: threshold !== null && p > threshold ? "fill above" : "fill", x: 4, width: 12, y: y(p), height: 30 - y(p) }),
    threshold === null ? null : svg("line", { class: "tick", x1: 0, x2: 20, y1: y(threshold), y2: y(threshold) }),
  );
}

/** The first step at which two episodes act differently, null where neither leaves the other. */
function partingStep(a, b) {
  const n = Math.min(a.steps.length, b.steps.length);
  for (let at = 0; at < n; at++) {
    const differ = a.steps[at].action !== b.steps[at].action || a.steps[at].executed !== b.steps[at].executed;
    if (differ) return at;
  }
  return a.steps.length === b.steps.length ? null : n;
}
