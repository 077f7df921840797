"""A small shop on this machine with the paths and the REST interface of WebArena's, and a player who knows it.

Each browser session has a shop of its own: reviews and the signed-in user are kept by cookie, so that a new session
finds the shop as it was. Only orders are the same for all, as the REST interface has no session.
"""

from __future__ import annotations

import html
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

TASKS = Path(__file__).with_name("webshop_tasks.json")
USER, PASSWORD = "shopper@shop.test", "only for tests"
ADMIN = {"username": "keeper", "password": "only for tests, too"}
PRICES = {
    "Desk Lamp": 19.99,
    "Oak Desk": 129.0,
    "Desk Organizer": 12.5,
    "Pine Shelf": 45.5,
    "Reading Chair": 210.0,
    "Wool Rug": 79.0,
}
LONG = "".join(
    f"<p>{words} Made to last.</p>" for words in ("Solid.", "Simple.", "Quiet.", "Warm.", "Plain.", "Calm.") * 4
)


@dataclass
class Session:
    """What one browser did."""

    user: str = ""
    admin: bool = False
    reviews: dict[str, list[tuple[str, str]]] = field(default_factory=dict)


@dataclass
class Shop:
    """The running server."""

    url: str
    sessions: dict[str, Session] = field(default_factory=dict)
    orders: list[str] = field(default_factory=list)
    """What was ordered, in this order."""
    posted: list[str] = field(default_factory=list)
    """Paths of all forms that were sent."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def slug(name: str) -> str:
    return name.lower().replace(" ", "-")


class Handler(BaseHTTPRequestHandler):
    """The shop's pages."""

    protocol_version = "HTTP/1.1"
    shop: Shop

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        product = next((name for name in PRICES if slug(name) == parts[-1].removesuffix(".html")), "")
        if parts[0] == "rest":
            self.rest(parts)
        elif parts == [""]:
            links = "".join(f"<li><a href='/search?q={word}'>{word}</a></li>" for word in ("desk", "chair", "rug"))
            self.page("Corner Shop", f"<ul>{links}</ul>")
        elif parts[0] == "search":
            self.search(asked.get("q", ""), asked.get("sort", "name"))
        elif parts[0] == "product" and product:
            self.product(product)
        elif parts[0] == "stock" and product:
            self.answer(200, json.dumps(f"{len(product)} in stock"), "application/json")
        elif parts[0] == "sizes" and product:
            self.page(f"Sizes of the {product}", "<p>One size.</p><button onclick='window.close()'>Close</button>")
        elif parts[:3] == ["customer", "account", "login"] or (parts == ["admin"] and not self.session.admin):
            self.login("")
        elif parts == ["admin"]:
            self.page("Dashboard", "<p>Nothing to do.</p>")
        elif parts[:2] == ["customer", "account"]:
            self.page("My Account", f"<p>{self.session.user or 'Nobody'}</p>")
        elif parts[:3] == ["sales", "order", "view"] and 0 < int(parts[4]) <= len(self.shop.orders):
            ordered = self.shop.orders[int(parts[4]) - 1]
            self.page("Order", f"<div class='order-details-items ordered'>Items Ordered: {ordered}</div>")
        elif parts[0] == "members":
            row = "<tr><td data-label='Account'><span class='gl-avatar-labeled-sublabel'>@{}</span></td>"
            row += "<td class='col-max-role'><span>{}</span></td></tr>"
            self.page("Members", f"<table>{row.format('ann', 'Owner')}{row.format('bob', 'Guest')}</table>")
        elif parts[0] == "empty":
            self.answer(204, "")
        else:
            self.page("Not here", "<p>This page does not exist.</p>", status=404)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"])).decode()
        parts = self.path.strip("/").split("/")
        if parts[0] == "rest":
            given = json.loads(raw)
            self.answer(200 if given == ADMIN else 401, json.dumps("the-token"), "application/json")
            return
        self.shop.posted.append(self.path)
        form = {key: values[0] for key, values in parse_qs(raw).items()}
        product = next((name for name in PRICES if slug(name) == parts[-1]), "")
        if parts[0] == "customer":
            if (form.get("user"), form.get("password")) != (USER, PASSWORD):
                self.login("The account sign-in was incorrect.")
                return
            self.session.user = USER
            self.redirect("/customer/account/")
        elif parts[0] == "admin":
            self.session.admin = {"username": form.get("user"), "password": form.get("password")} == ADMIN
            self.redirect("/admin")
        elif not self.session.user:
            self.redirect("/customer/account/login/")
        elif parts[0] == "review":
            review = (form["stars"], form.get("text", ""))
            self.session.reviews.setdefault(product, []).append(review)
            self.redirect(f"/product/{slug(product)}.html")
        else:
            with self.shop.lock:
                self.shop.orders.append(product)
            self.page("Thank you", "<p>Your order was placed.</p>")

    def search(self, words: str, sort: str) -> None:
        found = sorted(name for name in PRICES if words.lower() in name.lower())
        found = sorted(found, key=PRICES.__getitem__) if sort == "price" else found
        items = "".join(f"<li><a href='/product/{slug(n)}.html'>{n}</a> <b>${PRICES[n]:.2f}</b></li>" for n in found)
        options = "".join(f"<option value={o} {'selected' * (o == sort)}>By {o}</option>" for o in ("name", "price"))
        sorter = f"<select name=sort aria-label='Order' onchange='this.form.submit()'>{options}</select>"
        hidden = f"<input type=hidden name=q value='{html.escape(words, quote=True)}'>"
        body = f"<p>{len(found)} products</p><form action=/search>{hidden}{sorter}</form><ul>{items}</ul>"
        self.page(f"Results for {words}", body)

    def product(self, name: str) -> None:
        said = [("4", f"I like my {name.lower()}."), *self.session.reviews.get(name, [])]
        reviews = "".join(f"<li>{stars} stars: {html.escape(text)}</li>" for stars, text in said)
        stock = f"fetch('/stock/{slug(name)}').then(r => r.json()).then(t => stock.textContent = t)"
        body = f"<p class=price>${PRICES[name]:.2f}</p><p id=stock></p><script>{stock}</script>"
        body += f"<p><a href='/sizes/{slug(name)}' target=_blank>Sizes</a></p>"
        if self.session.user:
            body += f"<form method=post action='/buy/{slug(name)}'><button>Buy Now</button></form>"
        body += f"{LONG}<h2>Reviews</h2><ul id=reviews>{reviews}</ul>"
        if self.session.user:
            stars = "".join(f"<option>{i}</option>" for i in range(1, 6))
            body += (
                f"<form method=post action='/review/{slug(name)}'><select name=stars aria-label=Stars>{stars}</select>"
            )
            body += "<textarea name=text aria-label='Your review'></textarea><button>Submit Review</button></form>"
        self.page(name, body)

    def login(self, problem: str) -> None:
        fields = "<label>Email <input name=user></label><label>Password <input type=password name=password></label>"
        self.page("Customer Login", f"<p>{problem}</p><form method=post>{fields}<button>Sign In</button></form>")

    def rest(self, parts: list[str]) -> None:
        body: object = [
            {"nickname": "ann", "ratings": [{"rating_name": "Rating", "percent": 20}]},
            {"nickname": "bob", "ratings": [{"rating_name": "Rating", "percent": 80}]},
        ]
        if parts[-1] == "orders":
            body = {"items": [{"increment_id": f"{len(self.shop.orders):09d}"}] if self.shop.orders else []}
        allowed = self.headers["authorization"] == "Bearer the-token"
        self.answer(200 if allowed else 401, json.dumps(body), "application/json")

    @property
    def session(self) -> Session:
        return self.shop.sessions.setdefault(self.sid, Session())

    @property
    def sid(self) -> str:
        found = re.search(r"sid=(\d+)", self.headers.get("cookie", ""))
        if not found and not getattr(self, "_sid", ""):
            with self.shop.lock:
                self._sid = str(len(self.shop.sessions) + 1)
                self.shop.sessions[self._sid] = Session()
        return found[1] if found else self._sid

    def page(self, title: str, body: str, status: int = 200) -> None:
        search = (
            "<form action=/search><input type=search name=q aria-label='Search the shop'><button>Search</button></form>"
        )
        who = f"<span>Welcome, {USER}</span>" if self.session.user else "<a href='/customer/account/login/'>Sign In</a>"
        top = f"<header><a href='/'>Corner Shop</a> {who} {search}</header>"
        head = f"<!doctype html><html><head><title>{title}</title><link rel=icon href='data:,'></head>"
        self.answer(status, f"{head}<body>{top}<h1>{title}</h1>{body}</body></html>")

    def redirect(self, to: str) -> None:
        self.answer(303, "", location=to)

    def answer(self, status: int, body: str, kind: str = "text/html; charset=utf-8", location: str = "") -> None:
        raw = body.encode()
        self.send_response(status)
        self.send_header("set-cookie", f"sid={self.sid}; path=/")
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(raw)))
        if location:
            self.send_header("location", location)
        self.end_headers()
        self.wfile.write(raw)
        self._sid = ""

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def running() -> Iterator[Shop]:
    """The shop on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {}))
    server.daemon_threads = True
    shop = Shop(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass.shop = shop  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def play(goal: str, state: str) -> str:
    """The next action towards a goal of the shop's task file, told from what the page shows."""

    def element(role: str, name: str) -> str:
        found = re.search(rf"\[(\d+)\] {role} ['\"]{re.escape(name)}['\"]", state)
        return found[1] if found else ""

    def price(name: str) -> str:
        return f"${PRICES[name]:.2f}"

    def look_for(words: str) -> str:
        box = element("searchbox", "Search the shop")
        return f"press('{box}', 'Enter')" if f"value='{words}'" in state else f"fill('{box}', '{words}')"

    product = next((name for name in PRICES if name in goal), "")
    on_its_page = f"(in front): __SHOPPING__/product/{slug(product)}.html'" in state
    if "How much is" in goal:
        return f"stop('{price(product)}')" if on_its_page else to_product(product, element) or look_for(product)
    if "How many products" in goal:
        words = goal.split('"')[1]
        count = re.search(r"(\d+) products", state)
        return f"stop('There are {count[1]}.')" if count else look_for(words)
    if "Show me the page" in goal:
        return "stop('')" if on_its_page else to_product(product, element) or look_for(product)
    if "Which is cheaper" in goal:
        return f"stop('{min((n for n in PRICES if n in goal), key=PRICES.__getitem__)}')"
    if "sorted by price" in goal:
        words = goal.split('"')[1]
        if "sort=price" in state:
            return "stop('The {}')".format(next(n for n in re.findall(r"link '([^']*)'", state) if n in PRICES))
        order = element("combobox", "Order")
        return f"select_option('{order}', 'By price')" if order else look_for(words)
    if "review" in goal:
        return write_review(goal, state, element) if on_its_page else to_product(product, element) or look_for(product)
    if "Order the" in goal:
        if element("heading", "Thank you"):
            return "stop('done')"
        return (
            f"click('{element('button', 'Buy Now')}')"
            if on_its_page
            else to_product(product, element) or look_for(product)
        )
    return "stop('N/A')"


def to_product(product: str, element: object) -> str:
    link = element("link", product)  # type: ignore[operator]
    return f"click('{link}')" if link else ""


def write_review(goal: str, state: str, element: object) -> str:
    text, stars = goal.split('"')[1], re.search(r"(\d) stars", goal)
    assert stars is not None
    if f"{stars[1]} stars: {text}" in state:
        return "stop('done')"
    list_, box, button = (
        element(role, name)  # type: ignore[operator]
        for role, name in (("combobox", "Stars"), ("textbox", "Your review"), ("button", "Submit Review"))
    )
    if not button:
        return "scroll('down')"
    if f"'Stars' value='{stars[1]}'" not in state:
        return f"select_option('{list_}', '{stars[1]}')"
    return f"click('{button}')" if f"value='{text}'" in state else f"fill('{box}', '{text}')"
