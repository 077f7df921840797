// Scripted experts: task name → plan(goal), computed from the page as it stands, whatever happened before.
//
// A plan is a list of groups to be done one after the other; the steps of a group may come in any order; a step is one
// action or a list of actions that are equally good. Empty groups count as done; null means that nothing helps any more.
const r2vExperts = (() => {
  'use strict';
  const one = selector => document.querySelector(selector);
  const all = selector => [...document.querySelectorAll(selector)];
  const text = e => e.textContent.replace(/\s+/g, ' ').trim();
  const visible = e => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
  const quoted = goal => [...goal.matchAll(/"(.*?)"(?=[\s.,]|$)/g)].map(match => match[1]);
  const bid = e => e.getAttribute('bid');

  const click = e => ['click', bid(e)];
  const any = elements => [elements.map(click)]; // one step, equally good on each of these
  const enter = (e, value) => e.value === value ? [] : [['fill', bid(e), value]];
  const tick = (box, wanted = true) => box.checked === wanted ? [] : [click(box)];
  const submit = () => [click(one('#subbtn'))];
  const form = steps => [steps, submit()];
  const fillAndSubmit = (selector, value) => form(enter(one(selector), value));
  const ordinal = goal => goal.match(/(\d+)(?:st|nd|rd|th)/g).map(word => parseInt(word) - 1);
  const pick = (list, wanted) => {
    const chosen = [...list.selectedOptions].map(option => option.text);
    const same = chosen.length === wanted.length && wanted.every(option => chosen.includes(option));
    return same ? [] : [['select_option', bid(list), ...wanted]];
  };
  const labelled = name => all('#boxes label').find(label => text(label) === name).querySelector('input');
  const linkOrWayToIt = (goal, opener) => { // the wanted link, or first what has to be clicked to see it
    const links = all('.alink').filter(link => text(link) === quoted(goal)[0]), seen = links.filter(visible);
    return seen.length ? [any(seen)] : [[click(opener(links[0]))], any(links)];
  };
  const solve = (left, sign, right) => ({'+': left + right, '-': left - right, 'x': left * right})[sign];

  const PLANS = {
    'click-button': goal => [any(all('#area button').filter(b => text(b) === quoted(goal)[0]))],
    'click-test': () => [[click(one('#subbtn'))]],
    'click-button-sequence': () =>
      buttonsPushed[0] === 'subbtn2' ? null
        : [[click(one('#subbtn'))], [click(one('#subbtn2'))]].slice(buttonsPushed.length),
    'click-link': goal => linkOrWayToIt(goal),
    'click-checkboxes': goal => {
      const wanted = goal.match(/^Select (.*) and click Submit\.$/)[1].split(', ');
      return form(all('#boxes label').flatMap(l => tick(l.querySelector('input'), wanted.includes(text(l)))));
    },
    'click-option': goal => form(tick(labelled(goal.match(/^Select (.*) and click Submit\.$/)[1]))),
    'click-dialog': () => [[click(one('.ui-dialog-titlebar-close'))]],
    'click-dialog-2': goal => [quoted(goal)[0] === 'x' ? [click(one('.ui-dialog-titlebar-close'))]
      : any(all('.ui-dialog-buttonpane button').filter(b => text(b) === quoted(goal)[0]))],
    'click-tab': goal => [any(all('#area ul a').filter(a => goal === `Click on ${text(a)}.`))],
    'click-tab-2': goal =>
      linkOrWayToIt(goal, link => one(`#area ul a[href="#${link.closest('.ui-tabs-panel').id}"]`)),
    'click-collapsible': () => form(visible(one('.ui-accordion-content')) ? [] : [click(one('h3'))]),
    'click-collapsible-2': goal =>
      linkOrWayToIt(goal, link => link.closest('.ui-accordion-content').previousElementSibling),
    'click-widget': goal => [any(all(`[data-type=${quoted(goal)[0]}]`))],
    'click-scroll-list': goal => [
      pick(one('#options'), goal.match(/^Select (.*) from the scroll list/)[1].split(', ')),
      [click(one('#area button'))],
    ],
    'enter-text': goal => fillAndSubmit('#tt', quoted(goal)[0]),
    'enter-text-2': goal =>
      fillAndSubmit('#tt', goal.includes('upper case') ? quoted(goal)[0].toUpperCase() : quoted(goal)[0].toLowerCase()),
    'enter-password': goal => form(['#password', '#verify'].flatMap(box => enter(one(box), quoted(goal)[0]))),
    'enter-date': goal => fillAndSubmit('#tt', goal.replace(/.*?(\d+)\/(\d+)\/(\d+).*/, '$3-$1-$2')),
    'enter-time': goal => {
      const [, hour, minute, half] = goal.match(/(\d+):(\d+)\s*([AP])M/);
      return fillAndSubmit('#tt', String(hour % 12 + (half === 'P' ? 12 : 0)).padStart(2, '0') + ':' + minute);
    },
    'focus-text': () => [[[click(one('#tt')), ['focus', bid(one('#tt'))]]]],
    'focus-text-2': goal => [[[click, e => ['focus', bid(e)]].map(how => how(all('#area input')[ordinal(goal)[0]]))]],
    'login-user': goal =>
      form([...enter(one('#username'), quoted(goal)[0]), ...enter(one('#password'), quoted(goal)[1])]),
    'choose-list': goal => [
      pick(one('#options'), [goal.match(/^Select (.*) from the list/)[1]]),
      [click(one('#area button'))],
    ],
    'read-table': goal => {
      const key = goal.match(/the value of (.*) into/)[1];
      return fillAndSubmit('#tt', text(all('#tab tr').find(row => text(row.cells[0]) === key).cells[1]));
    },
    'read-table-2': () => form([1, 2].flatMap(i => {
      const row = all('#tab tr').find(row => text(row.cells[0]) + ':' === text(one('#ll' + i)));
      return enter(one('#tt' + i), text(row.cells[1]));
    })),
    'simple-arithmetic': () => {
      const [left, sign, right] = text(one('#math-problem')).split(' ');
      return fillAndSubmit('#math-answer', String(solve(Number(left), sign, Number(right))));
    },
    'simple-algebra': () => {
      const [left, sign, right, , result] = text(one('#math-problem')).split(' ');
      const x = left === 'x' ? (sign === '+' ? result - right : Number(result) + Number(right))
        : (sign === '+' ? result - left : left - result);
      return fillAndSubmit('#math-answer', String(x));
    },
    'search-engine': goal => {
      const wanted = ordinal(goal.split('click the')[1])[0], page = String(Math.floor(wanted / 3) + 1);
      const typed = enter(one('#search-text'), quoted(goal)[0]);
      const results = all('#page-content a').filter(a => a.dataset.result !== '-1');
      const found = results.filter(a => a.dataset.result === String(wanted));
      if (found.length) return [[click(found[0])]];
      const turn = all('#pagination a').filter(a => text(a) === page);
      if (results.length && !typed.length) return [[click(turn[0])], [['click', null]]];
      return [typed, [click(one('#search'))], page === '1' ? [] : [['click', null]], [['click', null]]];
    },
    'form-sequence-2': goal => {
      const [radio, box] = ordinal(goal), number = goal.match(/number "(-?\d+)"/)[1];
      return form([
        ...tick(all('#area input[type=radio]')[radio]),
        ...all('#area input[type=text]').flatMap((e, i) => enter(e, i === box ? number : '')),
      ]);
    },
    'navigate-tree': goal => { // a folder listens at its name and at the sign before it, a file in its whole row
      const ways = li => [...li.querySelectorAll(':scope > .folder, :scope > .hitarea')].reverse();
      const targets = (li, places = ways(li)) => places.length ? places : [li];
      const rows = all('#tree li').filter(li => text(li.querySelector('span')) === quoted(goal)[0]);
      const seen = rows.filter(visible);
      if (seen.length) return [any(seen.flatMap(li => targets(li)))];
      const above = [];
      for (let li = rows[0].parentElement.closest('li'); li; li = li.parentElement.closest('li')) above.unshift(li);
      const closed = above.filter(li => !visible(li.querySelector('ul')));
      return [...closed.map(li => any(ways(li))), any(targets(rows[0]))];
    },
    'use-autocomplete-nodelay': goal => {
      const [first, end = ''] = quoted(goal), box = one('#tags');
      const wanted = ui_utils.COUNTRIES.filter(name => name.startsWith(first) && name.endsWith(end))[0];
      const offers = all('.ui-autocomplete li').filter(visible), offer = offers.find(li => text(li) === wanted);
      if (offer) return [[click(offer)], submit()];
      return wanted === box.value ? [submit()] : [enter(box, wanted), [['click', null]], submit()];
    },
    'find-word': goal => {
      const word = text(one('#area p')).split(' ')[ordinal(goal)[0]].replace(/[^a-zA-Z]/g, '');
      return fillAndSubmit('#answer-input', word);
    },
    'odd-or-even': () => [
      all('.row').flatMap(row => {
        const side = row.querySelector(text(row.querySelector('.display-number')) % 2 ? '.odd' : '.even');
        return side.classList.contains('selected') ? [] : [click(side)];
      }),
      [click(one('#submit'))],
    ],
    'text-transform': () => fillAndSubmit('#tt', all('#captcha span').map(text).join('')),
  };
  for (const [name, same] of [['unicode-test', 'click-button'], ['click-test-2', 'click-test']])
    PLANS[name] = PLANS[same];

  const plan = (task, goal) => {
    let groups;
    try { groups = PLANS[task](goal); } catch (error) { console.error(error); } // what it looks for is gone
    if (!groups) return null;
    const steps = groups.map(group => group.map(step => Array.isArray(step[0]) ? step : [step]));
    return steps.filter(group => group.length);
  };
  return {plan, tasks: Object.keys(PLANS)};
})();
