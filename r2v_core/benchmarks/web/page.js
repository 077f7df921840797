// Runs in a page before the page's own scripts: its elements and their ids, and what actions do to them.
(() => {
  'use strict';
  // -- which elements listen to clicks, so that a clickable <span> can be told from text
  const CLICKS = new Set(['click', 'mousedown', 'mouseup', 'dblclick']), listening = new WeakSet();
  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (type, ...rest) {
    if (CLICKS.has(type) && this instanceof Element) listening.add(this);
    return listen.call(this, type, ...rest);
  };

  // -- elements have ids ("bid", as in BrowserGym), counted in the order in which they came up
  const byId = new Map();
  const TYPED = ['text', 'password', 'number', 'email', 'search', 'tel', 'url'];
  const PICKED = ['date', 'time', 'color', 'range', 'month', 'week', 'datetime-local'];
  let around = 'bid'; // selects what does not belong to the page; nothing is called so
  const leaveOut = selector => { around = selector; };
  const shown = e => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
  const fillable = e => e.tagName === 'TEXTAREA' || (e.tagName === 'INPUT' && [...TYPED, ...PICKED].includes(e.type));
  const clickable = e =>
    ['BUTTON', 'A', 'INPUT', 'TEXTAREA', 'LABEL', 'SUMMARY'].includes(e.tagName) || listening.has(e) || !!e.onclick;
  const mark = () => {
    const facts = {};
    for (const e of document.body?.querySelectorAll('*') ?? []) {
      if (e.closest(around)) { e.setAttribute('bid', '-'); continue; }
      if (byId.get(e.getAttribute('bid')) !== e) {
        e.setAttribute('bid', String(byId.size + 1));
        byId.set(e.getAttribute('bid'), e);
      }
      if (!shown(e)) continue;
      facts[e.getAttribute('bid')] = {
        clickable: clickable(e) && !e.disabled,
        listening: listening.has(e) || !!e.onclick,
        fillable: fillable(e) && !e.disabled && !e.readOnly,
        text: e.tagName === 'INPUT' ? e.type : '',
        options: e.tagName === 'SELECT' && !e.disabled ? [...e.options].map(o => o.text) : null,
      };
    }
    return facts;
  };
  const find = bid => {
    const e = byId.get(String(bid));
    return e && e.isConnected && shown(e) && !e.closest(around) ? e : null;
  };

  // -- what an action does. Each answers with '' or with what is wrong.
  const usable = (bid, check) => {
    const e = find(bid);
    if (!e) return `There is no element ${bid}.`;
    if (e.disabled) return `Element ${bid} is disabled.`;
    return check(e);
  };
  const changed = (e, ...types) => types.forEach(type => e.dispatchEvent(new Event(type, {bubbles: true})));
  // The mouse. Its events are made here, at whatever lies on top at the element's middle, as MiniWoB++'s own elementClick
  // makes them: a real pointer's come when the compositor gets round to them, and again when something moves below it.
  const FOCUSABLE = 'a[href], button, input, select, textarea, [tabindex], [contenteditable]';
  let under = null;
  const mouse = (bid, act) => usable(bid, e => {
    if (e.tagName === 'OPTION') return `Element ${bid} is an option: use select_option on its list.`;
    e.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
    for (const box of e.getClientRects()) {
      const x = box.left + box.width / 2, y = box.top + box.height / 2, hit = document.elementFromPoint(x, y);
      if (hit && (e.contains(hit) || hit.contains(e) && !clickable(hit) || (e.labels && [...e.labels].includes(hit)))) {
        const at = {bubbles: true, cancelable: true, composed: true, view: window, clientX: x, clientY: y};
        act(hit, (Type, name, more) => hit.isConnected && hit.dispatchEvent(new Type(name, {...at, ...more})), at);
        return '';
      }
    }
    return `Element ${bid} can't be reached: something covers it.`;
  });
  const move = (hit, send, at) => {
    if (under !== hit) {
      if (under?.isConnected) under.dispatchEvent(new MouseEvent('mouseout', {...at, relatedTarget: hit}));
      send(MouseEvent, 'mouseover', {relatedTarget: under});
      under = hit;
    }
    send(MouseEvent, 'mousemove');
  };
  const press = (hit, send, detail) => {
    send(PointerEvent, 'pointerdown', {buttons: 1, detail});
    if (send(MouseEvent, 'mousedown', {buttons: 1, detail})) {
      const focused = hit.closest(FOCUSABLE);
      if (focused) focused.focus(); else document.activeElement?.blur();
    }
    send(PointerEvent, 'pointerup', {detail});
    send(MouseEvent, 'mouseup', {detail});
    send(PointerEvent, 'click', {detail});
  };
  const hover = bid => mouse(bid, move);
  const click = bid => mouse(bid, (hit, send, at) => { move(hit, send, at); press(hit, send, 1); });
  const dblclick = bid => mouse(bid, (hit, send, at) => {
    move(hit, send, at);
    press(hit, send, 1);
    press(hit, send, 2);
    send(MouseEvent, 'dblclick', {detail: 2});
  });
  const fill = (bid, text) => usable(bid, e => {
    if (!fillable(e)) return `Element ${bid} can't be filled in.`;
    if (e.readOnly) return `Element ${bid} is read-only.`;
    e.focus();
    if (e.disabled || !e.isConnected) return `Element ${bid} became disabled.`;
    if (PICKED.includes(e.type)) {
      const before = e.value;
      e.value = text;
      if (e.value !== text) { e.value = before; return `'${text}' is no value for a field of type ${e.type}.`; }
      changed(e, 'input', 'change');
      return '';
    }
    e.select();
    if (text) document.execCommand('insertText', false, text); else document.execCommand('delete');
    return '';
  });
  const select = (bid, wanted) => usable(bid, e => {
    if (e.tagName !== 'SELECT') return `Element ${bid} is no list.`;
    const found = wanted.map(text => [...e.options].find(o => o.text === text || o.value === text));
    const missing = wanted.find((_, i) => !found[i]);
    if (missing !== undefined) return `List ${bid} has no option '${missing}'.`;
    if (!e.multiple && found.length !== 1) return `List ${bid} takes one option.`;
    e.focus();
    for (const option of e.options) option.selected = found.includes(option);
    changed(e, 'input', 'change');
    return '';
  });
  const focus = bid => usable(bid, e => { e.focus(); return ''; });

  // -- a page as it is found out there: longer than its window
  const away = () => { // ids of the elements of which nothing is in the window
    const near = new Set(), gone = [];
    for (const e of byId.values()) {
      const inside = box =>
        box.bottom > 0 && box.top < window.innerHeight && box.right > 0 && box.left < window.innerWidth;
      if (!e.isConnected || ![...e.getClientRects()].some(inside)) continue;
      for (let o = e; o && !near.has(o); o = o.parentElement) near.add(o);
    }
    for (const [bid, e] of byId) if (e.isConnected && !near.has(e) && shown(e)) gone.push(bid);
    return gone;
  };
  const view = () => {
    const facts = mark(), down = window.scrollY, height = document.documentElement?.scrollHeight ?? 0;
    return {facts, away: away(), title: document.title, above: down > 1, below: down + window.innerHeight < height - 1};
  };
  const scroll = pages => { window.scrollBy({top: pages * window.innerHeight, behavior: 'instant'}); return ''; };
  const source = () => { // the document as the site made it
    const copy = document.documentElement.cloneNode(true);
    for (const e of copy.querySelectorAll('[bid]')) e.removeAttribute('bid');
    return copy.outerHTML;
  };
  window.r2v = {mark, find, leaveOut, hover, click, dblclick, fill, select, focus, view, scroll, source};
})();
