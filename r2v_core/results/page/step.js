// One step of an episode: what the agent saw, what was proposed, how it was routed, who acted, what happened.

const ACTORS = new Map([
  ["slm", ["S", "small model"]],
  ["teacher", ["T", "teacher"]],
  ["explore", ["E", "exploration"]],
]);

/** What a step came to, as a mark, a word and whether it was good. */
function outcomeOf(step) {
  if (!step.executed) return ["⊘", "swallowed by a tool failure: not carried out", null];
  if (step.progress === true) return ["✓", "carried out, and closer to the goal", true];
  if (step.progress === false) return ["✗", "carried out, and no closer to the goal", false];
  return ["·", "carried out; whether it helped is not known", null];
}

/** The panel of step `at`; `page` explains methods and scores, `view` is "marked", "seen" or "clean". */
function stepPanel(episode, at, method, page, view) {
  const step = episode.steps[at];
  return el(
    "div",
    { class: "step" },
    part("Saw", seenBlock(step, view), noiseList(step), earlier(episode, at)),
    part("Proposed", candidateTable(step)),
    part("Routed", routing(step, method, page)),
    part("Acted", acted(step)),
    part("Happened", happened(episode, at)),
  );
}

function part(title, ...content) {
  return el("section", { class: "part" }, el("h4", {}, title), ...content);
}

// Saw ---------------------------------------------------------------------------------------------------------------

function seenBlock(step, view) {
  const clean = step.clean ?? step.seen;
  const rows = [
    ["feedback", "Answer to the last action", clean.feedback, step.seen.feedback],
    ["state", "Situation", clean.state, step.seen.state],
  ];
  return el(
    "div",
    { class: "seen" },
    rows
      .filter(([, , before, after]) => before || after)
      .map(([name, label, before, after]) =>
        el("div", {}, el("p", { class: "label" }, label), el("p", { class: `text ${name}` }, seenText(before, after, view))),
      ),
  );
}

function seenText(clean, seen, view) {
  if (view === "clean") return [clean];
  if (view === "seen" || clean === seen) return [seen];
  const tags = { added: ["ins", "added by the noise"], hidden: ["del", "hidden by the noise"] };
  return textDiff(clean, seen).map(({ kind, text }) =>
    kind === "same" ? document.createTextNode(text) : el(tags[kind][0], { title: tags[kind][1] }, text),
  );
}

function earlier(episode, at) {
  if (at === 0) return null;
  const actions = episode.steps.slice(0, at).map(({ action, executed }) => (executed ? headline(action) : `${headline(action)} (swallowed)`));
  return el("p", { class: "earlier muted" }, `Actions before: ${actions.join(" → ")}`);
}

function noiseList(step) {
  if (!step.noise.length) return null;
  return el(
    "ul",
    { class: "noise" },
    step.noise.map(({ family, operator, detail }) =>
      el("li", {}, el("b", {}, `${family}: ${operator}`), Object.entries(detail).map(([name, value]) => ` · ${name}: ${plain(value)}`)),
    ),
  );
}

const plain = (value) => (typeof value === "string" ? `“${value}”` : JSON.stringify(value));

// Proposed ----------------------------------------------------------------------------------------------------------

function candidateTable(step) {
  const decision = step.decision;
  if (!decision || !decision.candidates.length) return el("p", { class: "muted" }, "The small model was not asked.");
  const heads = [
    ["action", "the small model's samples; ► is the one it would play"],
    ["score", "verifier's value: mean of both heads"],
    ["step", "verifier's step head"],
    ["outcome", "verifier's outcome head"],
    ["log-prob", "sum over the action's tokens, nats"],
    ["entropy", "mean over the action's tokens, nats"],
    ["helps?", "would it make progress, where the environment was asked"],
  ];
  const best = Math.max(...decision.candidates.map((one) => one.score ?? -Infinity));
  const known = new Map(decision.candidates.filter((one) => one.progress !== null).map((one) => [one.text, one.progress]));
  const rows = decision.candidates.map((one, i) => {
    const helps = known.has(one.text) ? (known.get(one.text) ? "yes" : "no") : "?"; // the same action is worth the same
    const chosen = i === decision.chosen;
    return el(
      "tr",
      { class: chosen ? "chosen" : null },
      el("th", { scope: "row" }, chosen ? el("span", { title: "the small model's choice", role: "img", "aria-label": "chosen" }, "► ") : null, one.text),
      el("td", { class: one.score === best ? "best" : null }, fixed(one.score, 3)),
      el("td", {}, fixed(one.step, 3)),
      el("td", {}, fixed(one.outcome, 3)),
      el("td", {}, fixed(one.logprob, 2)),
      el("td", {}, fixed(one.entropy, 2)),
      el("td", {}, helps),
    );
  });
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "candidates" },
      el("thead", {}, el("tr", {}, heads.map(([title, note]) => el("th", { scope: "col", title: note }, title)))),
      el("tbody", {}, rows),
    ),
  );
}

// Routed ------------------------------------------------------------------------------------------------------------

function routing(step, method, page) {
  const decision = step.decision;
  if (!decision) return el("p", { class: "muted" }, "No decision was recorded.");
  const rule = page.rules.get(method) ?? "";
  const lines = [];
  if (decision.probability !== null) {
    const name = page.scores.get(method) ?? "risk score";
    lines.push(gauge(decision.probability, decision.threshold, name));
    if (decision.threshold !== null) {
      const above = decision.probability > decision.threshold;
      lines.push(
        el("p", { class: "verdict-line" }, `${name} `, el("b", { class: "probability" }, fixed(decision.probability, 4)), above ? " is above " : " is not above ", "the threshold ", el("b", { class: "threshold" }, fixed(decision.threshold, 4))),
      );
    }
  }
  const answer = decision.escalate ? "Ask the teacher" : "Let the small model act";
  lines.push(el("p", {}, el("b", { class: "answer" }, answer), decision.blocked ? ` — refused: ${decision.blocked}` : "", rule ? el("span", { class: "muted" }, ` (${rule})`) : null));
  const cut = Object.entries(decision.cut ?? {});
  if (cut.length) lines.push(el("p", { class: "cut" }, `Left out of the small model's prompt: ${cut.map(([part, n]) => `${plural(n, "token")} of the ${part}`).join(", ")}`));
  const features = Object.entries(decision.features);
  if (features.length) {
    const cells = features.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, fixed(value, 3))]);
    lines.push(el("details", {}, el("summary", {}, plural(features.length, "feature")), el("dl", { class: "features" }, cells)));
  }
  return el("div", {}, lines);
}

/** The score on a line from 0 to 1 (or as far as it goes), the threshold as a tick across it. */
function gauge(probability, threshold, name) {
  const top = Math.max(1, 1.1 * probability, 1.1 * (threshold ?? 0));
  const x = (value) => 300 * Math.min(1, Math.max(0, value / top));
  const label = `${name} ${fixed(probability, 3)}${threshold === null ? "" : `, threshold ${fixed(threshold, 3)}`}`;
  const above = threshold !== null && probability > threshold;
  return svg(
    "svg",
    { class: "gauge", viewBox: "0 0 300 22", preserveAspectRatio: "xMinYMid", role: "img", "aria-label": label },
    svg("rect", { class: "track", x: 0, y: 6, width: 300, height: 10, rx: 3 }),
    svg("rect", { class: above ? "fill above" : "fill", x: 0, y: 6, width: x(probability), height: 10, rx: 3 }),
    threshold === null ? null : svg("line", { class: "tick", x1: x(threshold), x2: x(threshold), y1: 0, y2: 22 }),
  );
}

// Acted, happened -----------------------------------------------------------------------------------------------------

function acted(step) {
  const [letter, name] = ACTORS.get(step.actor) ?? ["?", step.actor];
  const decision = step.decision;
  const own = decision?.candidates[decision.chosen];
  const lines = [el("p", {}, el("span", { class: `actor ${step.actor}` }, `${letter} ${name}`), " ", el("b", { class: "action" }, step.action))];
  if (own && step.actor === "teacher") {
    const worth = { true: ", which would have helped", false: ", which would not have helped" }[own.progress] ?? "";
    const same = own.text === step.action ? "The small model would have done the same." : `The small model would have played “${own.text}”${worth}.`;
    lines.push(el("p", { class: "muted" }, same));
  }
  if (step.expert !== null && step.expert !== step.action) lines.push(el("p", { class: "muted" }, `The expert would have played “${step.expert}”.`));
  return el("div", {}, lines);
}

function happened(episode, at) {
  const step = episode.steps[at];
  const [mark, words_, good] = outcomeOf(step);
  const tone = good === null ? "" : good ? " good" : " bad";
  const lines = [el("p", { class: "outcome" }, el("span", { class: `mark${tone}`, "aria-hidden": "true" }, mark), ` ${words_}`)];
  if (step.unsafe) lines.push(el("p", {}, el("span", { class: "tag bad" }, "unsafe"), " This is what an injected instruction in the observation commanded."));
  const after = episode.steps[at + 1];
  if (step.remaining !== null) {
    const then = after && after.remaining !== null ? `, ${after.remaining} after it` : "";
    lines.push(el("p", { class: "muted" }, `Expert actions to the goal: ${step.remaining} before this action${then}.`));
  }
  if (!after) lines.push(el("p", {}, "The episode ended here."));
  const [tokensIn, tokensOut] = step.tokens;
  const dollars = step.cost_usd ? `, $${step.cost_usd.toPrecision(3)}` : "";
  lines.push(
    el("p", { class: "muted" }, `Cost ${units(step.cost)} units${dollars}; ${tokensIn} tokens in, ${tokensOut} out; ${fixed(step.latency_s, 2)} s.`),
  );
  return el("div", {}, lines);
}
