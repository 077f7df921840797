"""Helper functions that WebArena's task files call: ``func:name(argument)``, asked of a site or of the page in front.

Nothing is evaluated: a call's name and its quoted texts are read off. The shop is asked through Magento's REST
interface with the administrator's account.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from r2v_core.benchmarks.webarena.sites import Sites, account
from r2v_core.errors import R2VError

PATIENCE_S = 60.0
"""Seconds that a shop may take to answer."""

Value = Callable[[str], str]
"""A JavaScript expression's value on the page in front, '' where it fails."""

_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)
_ARGUMENT = re.compile(r"__page__|'[^']*'|\"[^\"]*\"")


def call_helper(call: str, sites: Sites, value: Value) -> str:
    """What a helper answers.

    Raises:
        R2VError: for a function that is not known, or a site that can't be asked.
    """
    parsed = _CALL.fullmatch(call.strip())
    name, inside = parsed.groups() if parsed else (call, "")
    arguments = [text.strip("'\"") for text in _ARGUMENT.findall(inside) if text != "__page__"]
    helpers: dict[str, tuple[int, Callable[..., str]]] = {
        "shopping_get_latest_order_url": (0, lambda: _latest_order(sites)),
        "shopping_get_sku_latest_review_author": (1, lambda sku: _latest_review(sites, sku, _author)),
        "shopping_get_sku_latest_review_rating": (1, lambda sku: _latest_review(sites, sku, _rating)),
        "reddit_get_post_url": (1, post_address),
        "gitlab_get_project_memeber_role": (1, lambda user: _role(value, user)),
    }
    if name not in helpers:
        raise R2VError(f"the task calls '{call[:80]}', an unknown function; known: {', '.join(helpers)}")
    count, helper = helpers[name]
    if len(arguments) != count:
        raise R2VError(f"the task calls '{call[:80]}', which takes {count} text argument(s)")
    return helper(*arguments)


def post_address(url: str) -> str:
    """The address of the post that a page of the forum is about; that of the page if it is about none."""
    parts = urlsplit(url)
    folders = parts.path.split("/")
    if len(folders) < 4 or folders[1] != "f":
        return url
    return f"{parts.scheme}://{parts.netloc}/f/{folders[2]}/{folders[3]}/"


def _latest_order(sites: Sites) -> str:
    shop = _shop(sites)
    order = "searchCriteria[sortOrders][0]"
    query = {f"{order}[field]": "created_at", f"{order}[direction]": "DESC", "searchCriteria[pageSize]": "1"}
    answer = _ask(f"{shop}/rest/V1/orders?{urlencode(query)}", token=_token(shop))
    try:
        number = int(answer["items"][0]["increment_id"])
    except (LookupError, TypeError, ValueError):
        raise R2VError(
            f"{shop}: lists no order, or not as Magento's REST interface does; is it WebArena's shop?"
        ) from None
    return f"{shop}/sales/order/view/order_id/{number}/"


def _latest_review(sites: Sites, sku: str, of: Callable[[Any], str]) -> str:
    shop = _shop(sites)
    reviews = _ask(f"{shop}/rest/V1/products/{quote(sku, safe='')}/reviews", token=_token(shop))
    try:
        return of(reviews[-1]) if reviews else ""
    except (LookupError, TypeError):
        raise R2VError(
            f"{shop}: does not list reviews of {sku} as Magento's REST interface does; is it WebArena's shop?"
        ) from None


def _author(review: Any) -> str:
    return str(review["nickname"])


def _rating(review: Any) -> str:
    return str(review["ratings"][0]["percent"])


def _role(value: Value, user: str) -> str:
    """A member's role in the list of members of a GitLab project; '' where it does not stand there."""
    rows = "[...document.querySelectorAll('tr')]"
    name = "row.querySelector('td[data-label=\"Account\"] span.gl-avatar-labeled-sublabel')?.outerText"
    role = "?.querySelector('td.col-max-role span')?.outerText"
    return value(f"{rows}.find(row => {name} === {json.dumps('@' + user)}){role} ?? ''")


def _shop(sites: Sites) -> str:
    if "shopping" not in sites.addresses:
        raise R2VError("this task asks the shop about its orders or reviews: set WA_SHOPPING")
    return sites.addresses["shopping"]


def _token(shop: str) -> str:
    user, password = account("shopping_admin") or ("", "")
    body = {"username": user, "password": password}
    return str(_ask(f"{shop}/rest/default/V1/integration/admin/token", body=body))


def _ask(url: str, body: Any = None, token: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data=data, headers=headers), timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        advice = "; set WA_SHOPPING_ADMIN_USER and _PASSWORD to its administrator" if error.code in (401, 403) else ""
        raise R2VError(f"{url.partition('?')[0]} refuses: status {error.code}{advice}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise R2VError(f"{url.partition('?')[0]} can't be reached: {error}") from None
