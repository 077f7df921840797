"""Files that are written to harm: a line each, at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2v_core.config.yamlfile import parse_value, read_yaml
from r2v_core.errors import R2VError
from r2v_core.stages.experiments import load_config

ALIASES = ["a: &a [x, x, x, x, x, x, x, x, x]"]
ALIASES += [f"{c}: &{c} [{', '.join([f'*{before}'] * 9)}]" for before, c in zip("abcdefgh", "bcdefghi", strict=True)]
"""387 million values in 300 bytes."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n".join(ALIASES), "its aliases expand to more than 200,000 values"),
        ("benchmark:\n  options:\n    " + "\n    ".join(ALIASES), "its aliases expand to more than"),
        ('name: x\nnotes: "\\ud800"', "line 2 holds half of a character, '\\ud800'"),
        ("a: " + "[" * 3000 + "]" * 3000, "nesting never ends"),
        ("a: &a [*a]", "an alias contains itself"),
    ],
)
def test_a_line_each(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(R2VError) as caught:
        read_yaml(file)
    assert words in str(caught.value) and str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_that_mean_something_stay(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("a: &a {x: 1}\nb: *a")
    assert read_yaml(tmp_path / "good.yaml").data == {"a": {"x": 1}, "b": {"x": 1}}
    assert parse_value("[&a [1], *a]") == [[1], [1]] and parse_value("") is None


@pytest.mark.parametrize("value", ["[&a [*a]]", "[" * 3000 + "]" * 3000, '"\\ud800"'])
def test_overrides_too(tmp_path: Path, value: str) -> None:
    (tmp_path / "base.yaml").write_text("name: x")
    with pytest.raises(R2VError, match=r"^\S*.*name \(override\): not a YAML value"):
        load_config("base.yaml", [f"name={value}"], project=tmp_path)


@pytest.mark.parametrize("path", ["/", ".", "..", "/no-such.yaml"])
def test_a_config_that_is_no_file(tmp_path: Path, path: str) -> None:
    with pytest.raises(R2VError, match=r"^No config file '"):
        load_config(path, project=tmp_path)
