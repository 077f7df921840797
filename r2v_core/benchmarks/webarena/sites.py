"""The sites that WebArena's tasks play on: where they are, whether they answer, and who is logged in.

Task files name a site by a placeholder (``__SHOPPING__``), the environment says where it is (``WA_SHOPPING``). Agents
see and say placeholders as well, so that nothing they learn depends on where somebody's sites run.
"""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from r2v_core.errors import R2VError

Site = Literal["shopping", "shopping_admin", "reddit", "gitlab", "wikipedia", "map"]
SITES: tuple[Site, ...] = get_args(Site)
ALSO = ("homepage",)
"""Addresses that tasks may name besides, known where they are set."""

LOGIN_PAGES = {
    "shopping": "/customer/account/login/",
    "shopping_admin": "",
    "reddit": "/login",
    "gitlab": "/users/sign_in",
}
"""Where the login form of a site that knows users is, from its address on. Who the tasks play as is in
``WA_<SITE>_USER`` and ``WA_<SITE>_PASSWORD``."""

PATIENCE_S = 5.0
"""Seconds that a site may take to say that it is there."""

SETUP = "https://github.com/web-arena-x/webarena/tree/main/environment_docker"


def variable(site: str) -> str:
    """The environment variable that says where a site is."""
    return f"WA_{site.upper()}"


def account_variables(site: str) -> list[str]:
    """The environment variables with name and password of a site's user; none where nobody logs in."""
    return [f"{variable(site)}_USER", f"{variable(site)}_PASSWORD"] if site in LOGIN_PAGES else []


def account(site: str) -> tuple[str, str] | None:
    """Name and password of a site's user; None where nobody logs in.

    Raises:
        R2VError: if they are not set.
    """
    names = account_variables(site)
    if missing := [name for name in names if not os.environ.get(name)]:
        raise R2VError(_who_logs_in(missing))
    return (os.environ[names[0]], os.environ[names[1]]) if names else None


def _who_logs_in(missing: list[str]) -> str:
    return f"set {', '.join(missing)} to the account that tasks log in with; those of the published sites: {SETUP}"


@dataclass(frozen=True)
class Sites:
    """Placeholders and addresses of some sites."""

    addresses: Mapping[str, str]
    """Site → its address without a slash at the end."""

    @classmethod
    def known(cls) -> Sites:
        """The sites whose variables are set."""
        found = {site: os.environ.get(variable(site), "").strip().rstrip("/") for site in (*SITES, *ALSO)}
        return cls({site: address for site, address in found.items() if address})

    @property
    def hosts(self) -> frozenset[str]:
        """The machines that they are on."""
        return frozenset(urlsplit(address).hostname or "" for address in self.addresses.values()) - {""}

    def covers(self, url: str) -> bool:
        """Whether an address belongs to one of them."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        places = {urlsplit(address).netloc for address in self.addresses.values()}
        return parts.scheme in ("http", "https") and parts.netloc in places

    def resolve(self, value: Any) -> Any:
        """A text, or a JSON value with texts in it, with addresses in place of placeholders."""
        if isinstance(value, str):
            for site, address in self.addresses.items():
                value = value.replace(f"__{site.upper()}__", address)
        elif isinstance(value, list):
            return [self.resolve(item) for item in value]
        elif isinstance(value, dict):
            return {key: self.resolve(item) for key, item in value.items()}
        return value

    def shown(self, text: str) -> str:
        """A text with placeholders in place of addresses."""
        for site, address in sorted(self.addresses.items(), key=lambda item: -len(item[1])):
            text = re.sub(rf"{re.escape(address)}(?![\w.:-])", f"__{site.upper()}__", text)
        return text

    def problem(self, wanted: Iterable[str]) -> str | None:
        """None if all of these sites are set and answer, else one line that says what to set or start."""
        wanted = list(wanted)
        missing = [variable(site) for site in wanted if site not in self.addresses]
        if missing:
            return f"set {', '.join(missing)} to where the sites answer (export {missing[0]}=http://…); see {SETUP}"
        if missing := [name for site in wanted for name in account_variables(site) if not os.environ.get(name)]:
            return _who_logs_in(missing)
        for site in wanted:
            if urlsplit(self.addresses[site]).scheme not in ("http", "https"):
                return f"{variable(site)}={self.addresses[site]}: an address starts with http:// or https://"
        with ThreadPoolExecutor(len(wanted) or 1) as pool:
            answers = list(pool.map(lambda site: _silence(self.addresses[site]), wanted))
        for site, silence in zip(wanted, answers, strict=True):
            if silence:
                return (
                    f"{variable(site)}={self.addresses[site]} does not answer ({silence}): start that site, see {SETUP}"
                )
        return None


def task_sites(names: Iterable[str], task_id: str) -> Sites:
    """All sites that are set, among them those that a task needs.

    Raises:
        R2VError: if one of these is not.
    """
    sites = Sites.known()
    for name in names:
        if name not in sites.addresses:
            raise R2VError(f"Task {task_id} plays on the site '{name}': set {variable(name)} to where it answers")
    return sites


def _silence(address: str) -> str:
    """Why an address does not answer, '' if it does, whatever it says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # Chromium asks no proxy either
    try:
        with opener.open(f"{address}/", timeout=PATIENCE_S):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"status {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return str(getattr(reason, "strerror", None) or reason)
