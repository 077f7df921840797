"""SWE-bench: patches that repair nothing don't pass, whatever they do to how tests run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from r2v_core.benchmarks.swebench import boxes, sandbox_worker
from r2v_core.benchmarks.swebench.boxes import Where
from r2v_core.benchmarks.swebench.data import load_instances
from r2v_core.benchmarks.swebench.doubts import contradiction, control_passed, read_answer
from r2v_core.benchmarks.swebench.files import Entry, Overlay
from r2v_core.benchmarks.swebench.judge import MARKS, Verdict
from r2v_core.benchmarks.swebench.runtime import Runtime, runtime_for
from r2v_core.benchmarks.swebench.sandbox_worker.control import sabotage
from r2v_core.benchmarks.swebench.sources import Repository, kind_of
from tests.benchmarks import forgeries

SQL = "andialbrecht__sqlparse-0.4.3"
INIT, UTILS = "sqlparse/__init__.py", "sqlparse/utils.py"


@pytest.fixture(scope="module")
def runtime(swebench_folder: Path) -> Runtime:
    """The one that the tests of the workspace use, too."""
    instance = load_instances(None, swebench_folder, "test")[SQL]
    return runtime_for(instance, Where("local", swebench_folder.resolve(), 60, 300, 2048, 256))


@pytest.fixture(scope="module")
def plain(runtime: Runtime) -> Runtime:
    """The same instance without a script of its own: the default command, which heeds the repository's settings."""
    return Runtime(replace(runtime.instance, eval_script=""), runtime.where)


def written(files: dict[str, str]) -> Overlay:
    return Overlay({name: Entry(text.encode()) for name, text in files.items()})


def added(runtime: Runtime, path: str, text: str) -> Overlay:
    return Overlay({path: Entry((runtime.read(path) or b"") + text.encode())})


@pytest.mark.parametrize("name", forgeries.SETTINGS)
def test_what_decides_how_tests_run_is_undone(runtime: Runtime, name: str) -> None:
    found = runtime.judge(written(forgeries.SETTINGS[name]))
    assert not found.resolved and found.fixed == 0 and found.score == 0.0
    only_tests = all(path.startswith("tests/") and "conftest" not in path for path in forgeries.SETTINGS[name])
    assert found.flags or (only_tests and not name.startswith("filter")) or not found.ran


@pytest.mark.parametrize("name", forgeries.SETTINGS)
def test_so_it_is_with_the_default_command(plain: Runtime, name: str) -> None:
    assert "-o addopts" not in plain.instance.test_command
    assert plain.judge(written(forgeries.SETTINGS[name])).fixed == 0


@pytest.mark.parametrize("name", forgeries.SOURCE)
def test_source_that_forges_gives_itself_away(runtime: Runtime, name: str) -> None:
    found = runtime.judge(added(runtime, INIT, forgeries.SOURCE[name]))
    assert not found.resolved and found.fixed == 0


def test_what_equals_everything_is_noticed(runtime: Runtime) -> None:
    found = runtime.judge(added(runtime, UTILS, forgeries.EQUAL))
    assert found.fixed == 0 and "had to fail passed" in found.doubt
    assert (
        any(flag.startswith("not believed: ") for flag in found.flags) and f"speaks of __eq__: {UTILS}" in found.flags
    )


def test_what_goes_unnoticed_is_flagged(runtime: Runtime) -> None:
    found = runtime.judge(added(runtime, INIT, forgeries.UNNOTICED))
    assert found.flags == [f"speaks of pytest, sys.modules: {INIT}"]


def test_the_default_command_resolves_the_reference(plain: Runtime) -> None:
    gold = plain.verdict(plain.instance.patch.encode())
    assert gold.resolved and gold.flags == []


def test_a_repair_counts_whatever_else_is_undone(runtime: Runtime) -> None:
    whole = runtime.gold.with_(written(forgeries.SETTINGS["filterwarnings in pytest.toml"]).entries)
    found = runtime.judge(whole)
    assert found.resolved and "settings: pytest.toml" in found.flags


@pytest.mark.parametrize("said", ['{"names": []}', f'{"0" * 32}{{"names": []}}', ""])
def test_an_answer_without_the_seal_is_none(runtime: Runtime, said: str) -> None:
    with pytest.raises(boxes.SandboxUnresponsive, match=r"x: the box of 'list' gave no answer: it broke"):
        boxes.asked(lambda request: (f"\n{said}\n", "it broke"), "x", {"mode": "list"})


def test_the_worker_is_made_of_all_its_modules() -> None:
    folder = Path(sandbox_worker.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == {*boxes.PARTS}


ANSWER = {
    "status": 0,
    "log": "\n".join([MARKS["start"], *(f"PASSED {name}" for name in forgeries.PASSES), MARKS["end"]]),
    "records": [*(["test", name, "call", "passed", False] for name in forgeries.PASSES), ["end", 0]],
}


def test_two_channels_have_to_agree(runtime: Runtime) -> None:
    instance = runtime.instance
    assert contradiction(instance, read_answer(instance, ANSWER)) == ""
    for change, told in (
        ({"records": None}, "wrote to pytest's records"),
        ({"records": ANSWER["records"][1:]}, "1 printed results that pytest did not report"),  # type: ignore[index]
        ({"records": ANSWER["records"][:-1]}, "exit status 0"),  # type: ignore[index]
        ({"status": 1}, "exit status 1"),
    ):
        assert told in contradiction(instance, read_answer(instance, {**ANSWER, **change}))


def test_subtests_that_pass_do_not_hide_a_failure(runtime: Runtime) -> None:
    facts = [("call", "passed"), ("call", "failed"), ("teardown", "passed")]
    for order in (facts, facts[::-1]):
        records = [["test", "t.py::test_a", *fact, False] for fact in order]
        found = read_answer(runtime.instance, {"status": 1, "log": "", "records": records})
        assert "FAILED t.py::test_a" in found.log and "PASSED" not in found.log


def test_a_control_has_to_fail(runtime: Runtime) -> None:
    instance = runtime.instance
    run = read_answer(instance, ANSWER)
    had_to = [f"{forgeries.TESTS}::test_remove_quotes"]
    failed = [*(["test", name, "call", "failed", False] for name in forgeries.PASSES), ["end", 1]]
    honest = {"status": 1, "log": "", "records": failed, "controlled": had_to}
    assert control_passed(instance, run, read_answer(instance, honest)) == ""
    assert "had to fail passed" in control_passed(
        instance, run, read_answer(instance, {**ANSWER, "controlled": had_to})
    )
    silent = {**honest, "records": [["end", 1]]}
    assert "was reported" in control_passed(instance, run, read_answer(instance, silent))
    assert (
        control_passed(instance, run, read_answer(instance, {**silent, "controlled": []})) == ""
    )  # nothing is known then


TESTS = """
import pytest, unittest

def test_equal(): assert 1 == 1
def test_true():
    assert True
def test_returns():
    return
def test_loop():
    for value in (): assert value == 1
def test_raises():
    with pytest.raises(AssertionError):
        assert 1 == 2
def test_tried():
    try: assert 1 == 1
    except AssertionError: pass
async def test_waiting(): assert 1 == 1
@pytest.mark.xfail
def test_expected(): assert 1 == 2
def test_any():
    from unittest.mock import ANY
    assert 1 == ANY
def helper(): return 1

class TestThings(unittest.TestCase):
    def test_method(self):
        self.assertEqual(helper(), 1)
    @unittest.expectedFailure
    def test_not(self): self.fail()
"""


def test_a_sabotaged_test_fails_whatever_it_asserts(tmp_path: Path) -> None:
    (tmp_path / "test_all.py").write_text(TESTS)
    found = sabotage(tmp_path, ["test_all.py", "none.py"])
    names = [name.partition("::")[2] for name in found]
    assert names == [
        "test_equal", "test_true", "test_returns", "test_loop", "test_raises", "test_tried", "test_waiting", "test_any",
        "TestThings::test_method",
    ]  # fmt: skip
    space: dict[str, object] = {}
    exec(compile((tmp_path / "test_all.py").read_text(), "test_all.py", "exec"), space)
    for name in names:
        if name not in ("test_waiting", "TestThings::test_method"):
            with pytest.raises(AssertionError):
                space[name]()  # type: ignore[operator]
    with pytest.raises(AssertionError):
        space["test_waiting"]().send(None)  # type: ignore[operator]
    with pytest.raises(AssertionError):
        space["TestThings"]("test_method").test_method()  # type: ignore[operator]


REPOSITORY = Repository(
    names=(
        "pkg/__init__.py",
        "pkg/core.py",
        "setup.cfg",
        "packaging/build.sh",
        "unit/check_x.py",
        "pkg/tests/__init__.py",
    ),
    tests=("unit/check_x.py", "pkg/tests/test_a.py"),
    asked_for=frozenset({"setup.cfg"}),
    installed=lambda: {"json", "packaging", "pytest", "pkg"},
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("pkg/core.py", ""), ("pkg/json.py", ""), ("pkg/new/deep.py", ""), ("README.rst", ""), ("new.py", ""),
        ("docs/conf.toml", ""), ("pkg/data.json", ""),
        ("setup.cfg", "settings"), ("pkg/x.toml", "settings"), ("unit/x.ini", "settings"), ("x.toml/y", "settings"),
        (".gitattributes", "settings"), ("pkg/a.so", "compiled"), ("x.zip", "compiled"),
        ("unit/check_x.py", "test"), ("pkg/tests/new.py", "test"),
        ("json.py", "in the place of a module"), ("src/json/__init__.py", "in the place of a module"),
        ("unit/json.py", "in the place of a module"), ("packaging/__init__.py", "in the place of a module"),
        ("a/b.pth", "loaded by itself"), ("x.egg-info/y", "loaded by itself"), ("Conftest.py", "loaded by itself"),
        ("deep/sitecustomize/x.py", "loaded by itself"),
    ],
)  # fmt: skip
def test_what_is_no_source(path: str, kind: str) -> None:
    assert kind_of(path, REPOSITORY) == kind


def test_a_doubt_leaves_nothing_fixed() -> None:
    assert Verdict(False, 0, 1, 0, 1, doubt="x", touched=("settings: y",)).flags == ["not believed: x", "settings: y"]
