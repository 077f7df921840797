// Runs in a MiniWoB++ page after web/page.js and before the page's own scripts: a clock that only we move, and episodes.
(() => {
  'use strict';
  r2v.leaveOut('#reward-display, #click-canvas, #sync-task-cover, #query');

  // -- time. Timers and dates follow a virtual clock, so an episode is the same on a busy machine and an idle one.
  const RealDate = Date;
  let now = RealDate.UTC(2020, 0, 15, 12), timers = [], last = 0;
  const start = now;
  const add = (task, delay, every, rest) => {
    const due = now + Math.max(Number(delay) || 0, every ? 1 : 0);
    timers.push({id: ++last, due, every: every ? Math.max(Number(delay) || 0, 1) : 0, task, rest});
    return last;
  };
  const drop = id => { timers = timers.filter(timer => timer.id !== id); };
  window.setTimeout = (task, delay, ...rest) => add(task, delay, false, rest);
  window.setInterval = (task, delay, ...rest) => add(task, delay, true, rest);
  window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = drop;
  window.requestAnimationFrame = task => add(() => task(now - start), 16, false, []);
  performance.now = () => now - start;
  window.Date = class extends RealDate {
    constructor(...parts) { if (parts.length) super(...parts); else super(now); }
    static now() { return now; }
  };
  const advance = ms => {
    const end = now + ms;
    for (let turns = 0; turns < 10000; turns++) {
      const next = timers.filter(timer => timer.due <= end).sort((a, b) => a.due - b.due || a.id - b.id)[0];
      if (!next) break;
      now = Math.max(now, next.due);
      if (next.every) next.due = now + next.every; else drop(next.id);
      if (typeof next.task === 'function') try { next.task(...next.rest); } catch (error) { console.error(error); }
    }
    now = end;
  };

  // -- episodes
  const begin = seed => {
    const still = document.createElement('style');
    still.textContent = '*, *::before, *::after { transition: none !important; animation: none !important; }';
    document.head.append(still);
    if (window.jQuery) jQuery.fx.off = true;
    for (let i = 0; i < 100 && typeof genProblem !== 'function'; i++) advance(100);
    Math.seedrandom(seed);
    core.EPISODE_MAX_TIME = 1e12; // no verdict by the clock
    core.startEpisodeReal();
    for (let i = 0; i < 100 && !WOB_TASK_READY; i++) advance(100);
    advance(2000);
    document.activeElement?.blur();
    return goal();
  };
  const goal = () => {
    const said = core.getUtterance();
    return typeof said === 'string' ? said : said.utterance;
  };
  const look = task => {
    const facts = r2v.mark();
    return {
      facts,
      done: WOB_DONE_GLOBAL,
      reward: WOB_RAW_REWARD_GLOBAL,
      focused: r2v.find(document.activeElement?.getAttribute('bid'))?.getAttribute('bid') ?? null,
      plan: WOB_DONE_GLOBAL ? null : r2vExperts.plan(task, goal()),
    };
  };
  Object.assign(window.r2v, {advance, begin, look});
})();
