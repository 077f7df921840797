"""Logging in to a site through its own form, as its user would."""

from __future__ import annotations

import json

from r2v_core.benchmarks.web.tabs import Tabs
from r2v_core.benchmarks.webarena.sites import LOGIN_PAGES, Sites, account, variable
from r2v_core.errors import R2VError

_FORM = """(() => {
  const seen = e => e.getClientRects().length > 0;
  const secret = [...document.querySelectorAll('input[type=password]')].find(seen);
  if (!secret) return null;
  const around = secret.form ?? document;
  const texts = [...around.querySelectorAll('input')].filter(e => seen(e) && ['text', 'email'].includes(e.type));
  const before = texts.filter(e => e.compareDocumentPosition(secret) & Node.DOCUMENT_POSITION_FOLLOWING);
  return {secret, user: before.at(-1) ?? texts[0], form: secret.form};
})()"""

_FILL = """((form, user, password) => {
  if (!form?.user || !form.form) return false;
  const enter = (e, text) => { e.focus(); e.select(); document.execCommand('insertText', false, text); };
  enter(form.user, user);
  enter(form.secret, password);
  form.form.requestSubmit(form.form.querySelector('button[type=submit], input[type=submit], button:not([type])'));
  return true;
})"""


def log_in(tabs: Tabs, site: str, sites: Sites) -> None:
    """Log the site's user in, in the front tab; nothing on sites that know no users.

    Raises:
        R2VError: if there is no form, or it is still there afterwards.
    """
    who = account(site)
    if who is None:
        return
    url = sites.addresses[site] + LOGIN_PAGES[site]
    problem = tabs.go(url)
    tabs.settle()
    if problem:
        raise R2VError(f"{url} can't be opened ({problem}): is the site '{site}' running?")
    if tabs.run(f"{_FORM} !== null") is not True:
        raise R2VError(f"{url} has no login form; see that {variable(site)} is the address of the site '{site}'")
    user, password = map(json.dumps, who)
    tabs.run(f"{_FILL}({_FORM}, {user}, {password})")
    tabs.settle()
    if tabs.run(f"{_FORM} !== null") is not False:
        raise R2VError(
            f"{url} does not let '{who[0]}' in: set {variable(site)}_USER and {variable(site)}_PASSWORD to an account"
        )
