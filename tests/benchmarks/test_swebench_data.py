"""SWE-bench: instances from files and the hub, the back ends' command lines, how instances are built."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2v_assets.cli import app
from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.swebench import judge
from r2v_core.benchmarks.swebench.boxes import Where, docker_command
from r2v_core.benchmarks.swebench.build import _write, read_table
from r2v_core.benchmarks.swebench.data import END, START, Instance, load_instances, read_instance
from r2v_core.benchmarks.swebench.expert import next_place
from r2v_core.benchmarks.swebench.lines import key, places
from r2v_core.benchmarks.swebench.runtime import Runtime
from r2v_core.benchmarks.swebench.sources import is_test_file
from r2v_core.errors import R2VError
from r2v_core.sandbox.isolation import BACKENDS

ROOT = Path(__file__).parents[2]
ROW: dict[str, Any] = {
    "instance_id": "astropy__astropy-12907", "repo": "astropy/astropy", "base_commit": "d16bfe05", "version": "4.3",
    "patch": "p", "test_patch": "diff --git a/tests/test_x.py b/tests/test_x.py\n", "problem_statement": "It fails.",
    "FAIL_TO_PASS": '["tests/test_x.py::test_a"]', "PASS_TO_PASS": '["tests/test_x.py::test_b"]',
    "eval_script": f"cd /testbed\n: '{START}'\npytest -rA tests/test_x.py\n: '{END}'\n",
    "log_parser": "parse_log_pytest",
}  # fmt: skip
INSTANCE = read_instance(ROW, "here")
LOG = f"{START}\nPASSED tests/test_x.py::test_a\nPASSED tests/test_x.py::test_b\n{END}\n>>>>> Test Exit Code: 0\n"


def loaded(tmp_path: Path, *rows: object) -> dict[str, Instance]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return load_instances(str(path), tmp_path, "test")


def test_rows_of_the_official_data_set_are_read(tmp_path: Path) -> None:
    (found,) = loaded(tmp_path, ROW).values()
    assert found == INSTANCE and found.fail_to_pass == ("tests/test_x.py::test_a",)
    assert found.test_command == "pytest -rA tests/test_x.py"
    assert found.docker_image == "swebench/sweb.eval.x86_64.astropy_1776_astropy-12907:latest"
    assert loaded(tmp_path, found.row()) == {found.instance_id: replace(found, image=found.docker_image)}
    bare = replace(found, eval_script="")
    assert bare.test_command.startswith("python -m pytest -rA ") and bare.test_command.endswith(" tests/test_x.py")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["{"], r"rows\.jsonl:1: not a line of JSON"),
        ([{**ROW, "patch": None}], "the instance has no text 'patch'"),
        (["[1]"], "the instance has no text 'instance_id'"),
        ([{**ROW, "PASS_TO_PASS": "no list"}], "'PASS_TO_PASS' has to be a list"),
        ([{**ROW, "FAIL_TO_PASS": []}], "no test in FAIL_TO_PASS"),
        ([ROW, ROW], "rows.jsonl:2: instance astropy__astropy-12907 is listed twice; remove one of the two"),
        ([], "holds no instances"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path, rows: list[Any], told: str) -> None:
    with pytest.raises(R2VError, match=told):
        loaded(tmp_path, *rows)


def test_without_instances_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(R2VError, match="build them from PyPI with 'r2v swebench build'"):
        make_benchmark("swebench", {"folder": str(tmp_path)}, {}, 5)
    with pytest.raises(R2VError, match=r"no file .*none\.jsonl"):
        make_benchmark("swebench", {"instances": str(tmp_path / "none.jsonl")}, {}, 5)


def test_the_hub_without_a_connection_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    def offline(name: str, split: str) -> None:
        raise ConnectionError(f"Couldn't reach '{name}' ({split})\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(R2VError, match=r"'o/offline' could not be loaded .*Couldn't reach.*local JSONL file") as caught:
        load_instances("o/offline", tmp_path, "test")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: [ROW])
    assert load_instances("o/online", tmp_path, "test") == {INSTANCE.instance_id: INSTANCE}


def test_local_execution_says_which_clone_and_environment_it_misses(tmp_path: Path) -> None:
    loaded(tmp_path, ROW)
    options = {"folder": str(tmp_path), "instances": str(tmp_path / "rows.jsonl")}
    with pytest.raises(R2VError, match=r"the clone .*repositories/astropy__astropy is missing"):
        make_benchmark("swebench", options, {}, 5)
    with pytest.raises(R2VError, match="Did you mean 'astropy__astropy-12907'"):
        make_benchmark("swebench", {**options, "only": ["astropy__astropy-1290"]}, {}, 5)


def test_splits_are_by_repository_unless_asked_otherwise(swebench_folder: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (swebench_folder / "instances.jsonl").read_text().splitlines()]
    again = {**lines[0], "instance_id": f"{lines[0]['instance_id']}-again"}
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*lines, again]))
    options = {"folder": str(swebench_folder), "instances": str(path)}
    for template, wanted, found in (("repo", 4, 5), ("instance", 5, 5)):
        benchmark = make_benchmark("swebench", {**options, "template": template}, {"train": wanted}, 5)
        assert len(benchmark.make_tasks(1, tmp_path)) == found
        with pytest.raises(R2VError, match=f"there are {wanted} "):
            make_benchmark("swebench", {**options, "template": template}, {"train": wanted + 1}, 5).make_tasks(
                1, tmp_path
            )


def test_the_official_grader_decides() -> None:
    assert judge.grade(INSTANCE, "p", LOG) == judge.Verdict(True, 1, 1, 1, 1)
    broken = LOG.replace("PASSED tests/test_x.py::test_b", "FAILED tests/test_x.py::test_b - AssertionError")
    assert judge.grade(INSTANCE, "p", broken) == judge.Verdict(False, 1, 1, 0, 1)
    for log in ("", LOG.replace(END, ""), f"{judge.MARKS['apply_failed']}\n{LOG}", LOG.replace("Code: 0", "Code: 1")):
        assert judge.grade(INSTANCE, "p", log) == judge.Verdict(False, 0, 1, 0, 1, ran=False)
    assert judge.statuses(INSTANCE, LOG) == dict.fromkeys((*INSTANCE.fail_to_pass, *INSTANCE.pass_to_pass), "PASSED")
    with pytest.raises(R2VError, match="can't grade it"):
        judge.grade(replace(INSTANCE, log_parser="parse_log_of_tomorrow"), "p", LOG)


def test_docker_is_refused_in_one_line_where_no_engine_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded(tmp_path, ROW)
    options = {"instances": str(tmp_path / "rows.jsonl"), "execution": "docker"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        R2VError, match=r"needs Docker, which is not installed .* or use .*execution: local or apptainer"
    ):
        make_benchmark("swebench", options, {}, 5)
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    with pytest.raises(R2VError, match="no Docker engine answers here; start it") as caught:
        make_benchmark("swebench", options, {}, 5)
    assert "\n" not in str(caught.value)
    with pytest.raises(R2VError, match="apptainer is not installed"):
        make_benchmark("swebench", {**options, "execution": "apptainer"}, {}, 5)


WHERE = Where("docker", Path("data"), 60, 300, 2048, 256)


def test_a_docker_workspace_has_no_network_and_no_capabilities() -> None:
    words = docker_command(INSTANCE, WHERE, "r2v-1")
    assert words[:6] == ["docker", "run", "--rm", "--interactive", "--name", "r2v-1"]
    for option, value in (("--network", "none"), ("--cap-drop", "ALL"), ("--memory", "2048m")):
        assert words[words.index(option) + 1] == value
    assert words[-4:-1] == [INSTANCE.docker_image, "python3", "-c"]


def test_the_official_harness_gets_predictions_and_its_arguments(tmp_path: Path) -> None:
    judge.write_harness_files(INSTANCE, "the patch\n", tmp_path)
    told = json.loads((tmp_path / "predictions.jsonl").read_text())
    assert told == {
        "instance_id": INSTANCE.instance_id, "model_name_or_path": "r2v", "model_patch": "the patch\n",
    }  # fmt: skip
    from swebench.harness.run_evaluation import get_predictions_from_file
    from swebench.harness.utils import load_swebench_dataset, make_test_spec

    words = judge.harness_command(INSTANCE, tmp_path, 300)
    given_ = dict(zip(words[3::2], words[4::2], strict=True))
    assert words[1:3] == ["-m", "swebench.harness.run_evaluation"] and given_["--timeout"] == "300"
    (row,) = load_swebench_dataset(given_["--dataset_name"], given_["--split"], [given_["--instance_ids"]])
    spec = make_test_spec(row)
    assert (spec.image, spec.FAIL_TO_PASS) == (INSTANCE.docker_image, list(INSTANCE.fail_to_pass))
    assert get_predictions_from_file(given_["--predictions_path"], given_["--dataset_name"], "test") == [told]


@pytest.mark.parametrize("resolved", [True, False, None])
def test_the_harness_verdict_is_read_from_its_report(monkeypatch: pytest.MonkeyPatch, resolved: bool | None) -> None:
    tests = {"FAIL_TO_PASS": {"success": [1] if resolved else []}, "PASS_TO_PASS": {"success": [1]}}
    report = json.dumps({INSTANCE.instance_id: {"resolved": resolved, "tests_status": tests}})
    script = (
        "import sys, pathlib\n"
        f"p = pathlib.Path('logs/run_evaluation/r2v/r2v/{INSTANCE.instance_id}'); p.mkdir(parents=True)\n"
        f"(p / 'report.json').write_text({report!r})"
    )
    command = ["python3", "-c", script if resolved is not None else "import sys; sys.exit('no engine')"]
    monkeypatch.setattr(judge, "harness_command", lambda *_: command)
    if resolved is None:
        with pytest.raises(R2VError, match="gave no verdict; it said: no engine"):
            judge.judged_by_harness(INSTANCE, "p", 300)
    else:
        found = judge.judged_by_harness(INSTANCE, "p", 300)
        assert found == judge.Verdict(resolved, int(resolved), 1, 1, 1)
    with pytest.raises(R2VError, match="needs the instance's 'eval_script'"):
        judge.judged_by_harness(replace(INSTANCE, eval_script=""), "p", 300)


def test_apptainer_opens_the_official_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "apptainer"
    lines = ['printf "%s\\n" "$@" > "$0.told"', 'cat > "$0.asked"']
    lines += [
        'seal=$(sed \'s/.*"seal": "\\([0-9a-f]*\\)".*/\\1/\' "$0.asked")',
        'echo "$seal{\\"names\\": [\\"a.py\\"]}"',
    ]
    program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    runtime = Runtime(INSTANCE, replace(WHERE, execution="apptainer"))
    told = (tmp_path / "apptainer.told").read_text().splitlines()
    asked = json.loads((tmp_path / "apptainer.asked").read_text())
    assert runtime.names == ("a.py",) and (asked["mode"], asked["root"]) == ("list", "/testbed")
    assert f"docker://{INSTANCE.docker_image}" in told and {"--containall", "--writable-tmpfs", "none"} <= set(told)
    assert BACKENDS["apptainer"][0] == "apptainer"


def test_the_table_names_fixes_of_six_repositories_in_words_of_its_own() -> None:
    recipes = read_table(ROOT / "configs/swebench/instances.yaml")
    assert len({recipe.repo for recipe in recipes}) >= 6 and len({recipe.instance_id for recipe in recipes}) >= 7
    assert all(is_test_file(name) for recipe in recipes for name in recipe.tests)
    assert not any(is_test_file(name) for recipe in recipes for name in recipe.source)


def test_building_one_again_keeps_the_others(swebench_folder: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (swebench_folder / "instances.jsonl").read_text().splitlines()]
    path = tmp_path / "instances.jsonl"
    _write(path, rows)
    _write(path, [{**rows[1], "version": "new"}, {**rows[0], "instance_id": "another"}])
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found == [rows[0], {**rows[1], "version": "new"}, *rows[2:], {**rows[0], "instance_id": "another"}]


def test_a_wrong_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "instances.yaml"
    with pytest.raises(R2VError, match="no such file"):
        read_table(path)
    path.write_text("instances: []\n")
    with pytest.raises(R2VError, match="a list of fixes"):
        read_table(path)
    path.write_text("instances:\n  - {repo: a/b, package: b, before: '1', after: '2', source: [b.py], test: [t.py]}\n")
    with pytest.raises(R2VError, match="test"):
        read_table(path)


def test_the_command_line_refuses_an_unknown_instance() -> None:
    with pytest.raises(R2VError, match=r"no instance 'sqlparse'"):
        app(["swebench", "build", "--only", "sqlparse"], standalone_mode=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tests/data.json", True), ("pkg/tests/x.py", True), ("test_x.py", True), ("x_test.py", True),
        ("tests.py", True), ("conftest.py", True), ("a/conftest.py", True), ("tox.ini", True),
        ("sitecustomize.py", True),
        ("latest.py", False), ("src/contest.py", False), ("setup.cfg", False), ("pkg/attest/x.py", False),
    ],
)  # fmt: skip
def test_what_counts_as_a_test(name: str, expected: bool) -> None:
    assert is_test_file(name) is expected


LINES = st.lists(st.sampled_from(["a", "b", "    a", "", "c "]), max_size=12)


@given(LINES.filter(bool), LINES)
def test_places_that_differ_lead_to_the_goal_one_by_one(have: list[str], want: list[str]) -> None:
    edits = 0
    while place := next_place(have, want):
        first, last, new = place
        assert len(places(have, have[first:last])) == 1
        have = [*have[:first], *new, *have[last:]]
        edits += 1
        assert edits <= 24
        if not have:
            return
    assert [key(line) for line in have] == [key(line) for line in want]
