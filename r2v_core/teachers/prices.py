"""What a reply costs: dollars per million tokens, from ``configs/prices.yaml``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from r2v_core.config.explain import dotted_key, shown
from r2v_core.config.yamlfile import read_yaml
from r2v_core.errors import R2VError
from r2v_core.teachers.names import Provider

FILE = Path("configs/prices.yaml")
FREE: frozenset[Provider] = frozenset({"env", "local", "trained", "openai_compatible"})
"""Providers without a bill of their own: a model that the table does not list costs nothing there."""


class Price(BaseModel):
    """Dollars per million tokens, when that was so and who says so."""

    model_config = ConfigDict(extra="forbid")
    input: float = Field(ge=0)
    output: float = Field(ge=0)
    as_of: date | None = None
    source: str = ""

    def __str__(self) -> str:
        """As messages and tables show it."""
        if self.input == self.output == 0:
            return "nothing"
        when = f", as of {self.as_of}" if self.as_of else ""
        return f"${self.input:g} in, ${self.output:g} out per million tokens{when}"

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """Dollars for so many tokens."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


@dataclass(frozen=True)
class Prices:
    """The whole table."""

    table: dict[str, dict[str, Price]]

    def find(self, provider: Provider, model: str) -> Price | None:
        """The price of a model; None where it is unknown."""
        listed = self.table.get(provider, {}).get(model)
        return Price(input=0.0, output=0.0) if listed is None and provider in FREE else listed


_TABLE = TypeAdapter(dict[Provider, dict[str, Price]])


def load_prices(project: Path) -> Prices:
    """The project's price table; empty if there is no file.

    Raises:
        R2VError: naming file, line, key and value of what is no price.
    """
    file = project / FILE
    if not file.is_file():
        return Prices({})
    yaml = read_yaml(file, dots=True)
    if set(yaml.data) - {"prices"}:
        raise R2VError(f"{file}: expected one key, 'prices', with entries such as openai: {{gpt-4o: {{…}}}}")
    try:
        table = _TABLE.validate_python(yaml.data.get("prices") or {})
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False, include_context=False):
            key = dotted_key(detail)
            nearby = (f"prices.{key}", f"prices.{key.rpartition('.')[0]}")
            line = next((yaml.lines[place] for place in nearby if place in yaml.lines), 1)
            problems.append(f"{file}:{line}: {key}: {shown(detail['input'])} is not possible: {detail['msg']}")
        raise R2VError("\n".join(problems)) from None
    return Prices({str(provider): models for provider, models in table.items()})
