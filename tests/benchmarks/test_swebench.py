"""SWE-bench: the workspace as an agent sees it, and verdicts that its changes to tests don't touch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from r2v_core.agent.live import Choice, Job
from r2v_core.agent.loop import play
from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Outcome
from r2v_core.benchmarks.swebench.actions import HELP, edit_action, read_action
from r2v_core.benchmarks.swebench.doubts import control_passed
from r2v_core.benchmarks.swebench.env import SweBenchEnv
from r2v_core.benchmarks.swebench.files import Entry, Overlay
from r2v_core.benchmarks.swebench.judge import Verdict
from r2v_core.benchmarks.swebench.runtime import Runtime, scrubbed
from r2v_core.benchmarks.swebench.work import shortened
from r2v_core.perturbations import Noise
from tests.benchmarks import forgeries

SQL, TABLE, TITLE = "andialbrecht__sqlparse-0.4.3", "foutaise__texttable-1.7.0", "ppannuto__python-titlecase-2.4"
UTILS = "sqlparse/utils.py"
BUG = """    if val[0] in ('"', "'") and val[0] == val[-1]:\n"""
FIX = BUG.replace('"\'")', '"\'", "`")')
REPAIR = edit_action(UTILS, BUG, FIX)


@pytest.fixture(scope="module")
def benchmark(swebench_folder: Path) -> Benchmark:
    return make_benchmark("swebench", {"folder": str(swebench_folder)}, {"train": 4}, max_steps=16)


@pytest.fixture(scope="module")
def runtimes(benchmark: Benchmark, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SweBenchEnv]:
    cache = tmp_path_factory.mktemp("cache")
    return {task.task_id: benchmark.open(task, cache) for task in benchmark.make_tasks(1, cache)}


@pytest.fixture
def sql(runtimes: dict[str, SweBenchEnv]) -> Iterator[SweBenchEnv]:
    runtimes[SQL].reset()
    yield runtimes[SQL]


def patch(runtime: Runtime, *changes: tuple[str, str, str]) -> bytes:
    """A patch in which, in each file, the second text stands for the first."""
    made = ""
    for name, old, new in changes:
        data = (runtime.read(name) or b"").decode()
        assert old in data
        lines = [f"--- a/{name}\n", f"+++ b/{name}\n"]
        before, after = data.splitlines(True), data.replace(old, new).splitlines(True)
        lines += [f"@@ -1,{len(before)} +1,{len(after)} @@\n" if after else f"@@ -1,{len(before)} +0,0 @@\n"]
        made += "".join([*lines, *(f"-{line}" for line in before), *(f"+{line}" for line in after)])
    return made.encode()


def test_the_reference_resolves_and_nothing_does_not(runtimes: dict[str, SweBenchEnv]) -> None:
    for environment in runtimes.values():
        runtime = environment._runtime
        gold = runtime.verdict(runtime.instance.patch.encode())
        assert gold.resolved and gold.score == 1.0 and gold.fixed == gold.to_fix >= 1 and gold.kept == gold.to_keep >= 1
        control = runtime.tests(runtime.gold, control=True)
        assert control.controlled and control_passed(runtime.instance, runtime.reference, control) == ""
        assert runtime.verdict(b"") == Verdict(False, 0, gold.to_fix, gold.to_keep, gold.to_keep)


def test_a_patch_of_something_else_does_not_resolve(sql: SweBenchEnv) -> None:
    found = sql._runtime.verdict(patch(sql._runtime, ("sqlparse/exceptions.py", "class", "# nothing\nclass")))
    assert not found.resolved and (found.fixed, found.kept, found.ran) == (0, 3, True)


def test_what_breaks_a_test_that_passed_does_not_resolve(sql: SweBenchEnv) -> None:
    broken = FIX + "        val = val.upper()\n"
    found = sql._runtime.verdict(patch(sql._runtime, (UTILS, BUG, broken)))
    assert not found.resolved and found.fixed + found.kept < 4


def test_a_patch_that_does_not_apply_or_load_gets_a_verdict(sql: SweBenchEnv) -> None:
    runtime = sql._runtime
    lost = runtime.verdict(b"--- a/none.py\n+++ b/none.py\n@@ -1 +1 @@\n-x\n+y\n")
    assert not lost.resolved and not lost.ran
    assert not runtime.verdict(b"no patch at all\n").resolved
    assert not runtime.verdict(patch(runtime, (UTILS, BUG, "    return (\n"))).resolved


def test_changes_to_tests_and_their_settings_have_no_influence(runtimes: dict[str, SweBenchEnv]) -> None:
    environment = runtimes[TABLE]
    hook = "import pytest\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
    hook += "    (yield).get_result().outcome = 'passed'\n"
    files = {"conftest.py": hook, "tests/conftest.py": hook, "pytest.ini": "[pytest]\naddopts = --collect-only\n"}
    files |= {"tests.py": "def test_bool(): pass\n", "sitecustomize.py": "import os\nos._exit(0)\n"}
    written = "run mkdir tests\n" + "".join(f"cat > {name} <<'E'\n{text}E\n" for name, text in files.items())
    for cheat in (written, "run rm tests.py"):
        environment.reset()
        outcome = environment.step(cheat)
        assert outcome.progress is False and "Exit status 0." in outcome.observation.feedback
        assert environment.patch() and environment.would_progress("submit") is False
        found = environment._runtime.judge(environment._workspace.overlay)
        assert (found.fixed, found.kept, found.to_keep) == (0, found.to_keep, found.to_keep)


def test_a_repair_beside_deleted_tests_still_counts(sql: SweBenchEnv) -> None:
    sql.step("run rm -r tests")
    assert sql.step(REPAIR).progress and sql.step("submit").success


def test_nothing_hidden_can_be_found(sql: SweBenchEnv) -> None:
    told = sql.step(
        "run git log --all --oneline; cat ../*.tar ../*.json /tmp/* 2>/dev/null; env; "
        "cat /proc/*/cmdline /proc/*/environ | tr '\\0' ' '; git ls-files; ls $VIRTUAL_ENV/lib/python3*/site-packages; "
        "python -c 'import sqlparse; print(sqlparse.__version__)'; grep -rl \"'.foo.', 'foo'\" . "
        "; (exec 3<>/dev/tcp/127.0.0.1/80) 2>&1"
    ).observation.feedback
    instance = sql._runtime.instance
    assert "The repository as it was" in told and "0.4.2" in told
    for secret in ("test_patch", "test_utils", "0.4.3", "`foo`", instance.base_commit, "connected"):
        assert secret not in told, secret
    assert "test_utils" in instance.test_patch


def test_look_repair_submit(sql: SweBenchEnv) -> None:
    first = sql.reset()
    assert "Nothing is changed yet.\nFiles:\n" in first.observation.state and UTILS in first.observation.state
    assert (first.score, first.remaining) == (0.0, 3)
    outcome = sql.step("run grep -n 'val\\[0\\]' sqlparse/utils.py")
    assert outcome.observation.feedback.startswith("Exit status 0.\n58:") and outcome.progress is None
    assert sql.step("run grep -n 'val\\[0\\]' sqlparse/utils.py").progress is False  # shown already
    opened = sql.step(f"view {UTILS} 50-60")
    assert opened.progress is True and opened.remaining == 2 and BUG in opened.observation.state
    assert "Open: sqlparse/utils.py, lines 50-60 of 121:" in opened.observation.state
    done = sql.step(f"```\n{REPAIR}\n```")
    assert (done.progress, done.remaining, done.score, done.success) == (True, 1, 1.0, False)
    assert "Changed: sqlparse/utils.py." in done.observation.state and FIX in done.observation.state
    assert "+" + FIX in sql.patch() and sql.patch().startswith("diff --git a/sqlparse/utils.py")
    assert sql.step(f"undo {UTILS}").progress is False and sql.patch() == ""
    sql.step(REPAIR)
    assert sql.step("Submit.").model_copy(update={"observation": None}) == Outcome.model_construct(
        observation=None, done=True, success=True, score=1.0, remaining=0, progress=True
    )


def test_a_submission_that_may_be_forged_is_flagged_in_the_trace(sql: SweBenchEnv) -> None:
    cheat = f"run cat >> sqlparse/__init__.py <<'E'\n{forgeries.PATCHING}\nE\ntouch pytest.toml"
    actions = iter([cheat, "submit"])
    driver = SimpleNamespace(decide=lambda live: [Choice(next(actions), "explore") for _ in live])
    opened = lambda task: SweBenchEnv(task, sql._runtime, "tests")  # noqa: E731
    (episode,) = play(
        [Job("e", sql.task)], driver, open_environment=opened, noise=Noise.none(), parallel=1,
        benchmark="swebench", seed=1, metadata={},
    )  # fmt: skip
    believed, *touched = episode.metadata["verdict_flags"]
    assert not episode.success and believed.startswith("not believed: ")
    assert touched == ["settings: pytest.toml", "speaks of _pytest: sqlparse/__init__.py"]


def test_a_wrong_submission_ends_the_task(sql: SweBenchEnv) -> None:
    outcome = sql.step("submit")
    assert (outcome.done, outcome.success, outcome.remaining, outcome.progress) == (True, False, None, False)
    assert "do not pass" in outcome.observation.feedback and sql.expert_action() is None


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("ls", HELP[""]),
        ("run", HELP["run"]),
        ("view", HELP["view"]),
        ("view setup.py one-two", HELP["view"]),
        ("view ../etc/passwd", HELP["path"]),
        ("create .git/hooks/post-checkout\nx", HELP["path"]),
        ("view utils.py", f"there is no file utils.py; there is {UTILS}"),
        ("view setup.py 9999", "setup.py has"),
        (f"edit {UTILS}\nx", HELP["edit"]),
        (edit_action(UTILS, "no such line\n", "x\n"), f"these lines are not in {UTILS}"),
        (edit_action(UTILS, "    return val\n", "x\n").replace("    return val", ""), "are"),
        (edit_action(UTILS, "", "x\n"), "at least one line"),
        ("create sqlparse\nx", "sqlparse is a folder"),
        ("create setup.py/x\nx", "is a file"),
        ("undo setup.py", "nothing is changed at setup.py"),
        ("run \0", HELP["text"]),
    ],
)
def test_a_wrong_form_is_answered(sql: SweBenchEnv, action: str, told: str) -> None:
    outcome = sql.step(action)
    assert "Not done: " in outcome.observation.feedback and told in outcome.observation.feedback
    assert outcome.progress is False and outcome.remaining == 3 and sql.patch() == ""


def test_a_workspace_lasts_from_one_command_to_the_next(sql: SweBenchEnv) -> None:
    sql.step("run echo one > new.txt && chmod +x new.txt && ln -s new.txt link && rm TODO && git mv AUTHORS WHO")
    told = sql.step("run cat link; ls -l new.txt; ls TODO; git status --short").observation
    assert (
        "one\n-rwxr-xr-x 1 1000 1000 4 Jan  1  2020 new.txt" in told.feedback and "R  AUTHORS -> WHO" in told.feedback
    )
    assert "Changed: AUTHORS (gone), TODO (gone), WHO, link, new.txt." in told.state
    assert "run" not in sql.step("run git stash -uq; git stash pop -q; cat new.txt").observation.feedback
    assert {"new file mode 120000", "new file mode 100755"} <= set(sql.patch().splitlines())
    sql.reset()
    assert "No such file" in sql.step("run cat new.txt").observation.feedback


def test_commands_are_cut_off_in_time_and_in_length(
    benchmark: Benchmark, swebench_folder: Path, tmp_path: Path
) -> None:
    options = {"folder": str(swebench_folder), "only": [SQL], "command_s": 1}
    quick = make_benchmark("swebench", options, {"train": 1}, max_steps=4)
    (task,) = quick.make_tasks(1, tmp_path)
    environment = quick.open(task, tmp_path)
    environment.reset()
    outcome = environment.step("run echo kept > kept.txt; echo begun; sleep 60 & sleep 60")
    assert outcome.observation.feedback == "Stopped after 1 s.\nbegun" and "kept.txt" in outcome.observation.state
    long = environment.step("run seq 1 100000").observation.feedback
    assert "characters left out …]" in long and len(long) < 5000 and long.endswith("100000")
    big = environment.step("run head -c 40000000 /dev/zero > big").observation
    assert big.feedback.startswith("Nothing of it was kept: it left more than") and "big" not in big.state


@pytest.mark.parametrize("answer", ["", "{}", '{"problem": 0}', "5", "[" * 9999])
def test_a_command_that_breaks_its_box_changes_nothing(sql: SweBenchEnv, answer: str) -> None:
    outcome = sql.step(f"run echo x > new.txt; echo '{answer}' > /proc/$PPID/fd/1; kill -9 $PPID")
    assert "Nothing of it was kept: " in outcome.observation.feedback
    assert outcome.progress is False and sql.patch() == ""


@pytest.mark.parametrize("answer", ["{}", '{"problem": 0}', '{"problem": "", "changes": 3}', "5", "[" * 9999, "null"])
def test_an_answer_in_the_scripts_place_is_none(sql: SweBenchEnv, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    runtime = sql._runtime
    monkeypatch.setattr(runtime, "_launched", lambda *_: (f"\n{answer}\n", "it broke"))
    assert runtime.shell(Overlay(), f"true # {answer}").problem and not runtime.verdict(f"x {answer}".encode()).resolved


def test_output_is_the_same_when_the_same_is_done_again() -> None:
    assert (
        scrubbed("\x1b[32m3 passed\x1b[0m in 0.12s (0:00:12)\r\n<a at 0x7f12ab34>\x07") == "3 passed in …s\n<a at 0x…>"
    )
    assert shortened("x" * 4000) == "x" * 4000 and "[… 1 characters left out …]" in shortened("x" * 4001)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", [SQL, TITLE])
def test_the_expert_takes_over_from_any_mess(runtimes: dict[str, SweBenchEnv], name: str, seed: int) -> None:
    environment, dice = runtimes[name], random.Random(seed)
    environment.reset()
    source = next(path for path in environment._runtime.gold)
    mess = [
        f"run sed -i '{dice.randint(2, 50)}d;{dice.randint(51, 70)}s/^/#/' {source}",
        f"run rm {source}; mkdir {source}; touch {source}/x",
        f"run rm -rf {source.split('/')[0]}; touch {source.split('/')[0]}",
        "run rm -rf .git; echo 'raise SystemExit' > setup_helper.py",
        f"create {source.split('/')[0]}/__init__.py\nraise ImportError('broken')",
        *environment.hard_negatives(),
    ]
    for action in dice.sample(mess, 3):
        environment.step(action)
    for _ in range(30):
        advice = environment.expert_action() or ""
        outcome = environment.step(advice)
        assert outcome.progress is True, advice
        if outcome.done:
            break
    assert outcome.success


def test_slips_are_wrong_edits(runtimes: dict[str, SweBenchEnv]) -> None:
    labels = []
    for environment in (runtimes[SQL], runtimes[TITLE]):
        environment.reset()
        found = environment.hard_negatives()
        assert found == sorted(set(found)) and environment.expert_action() not in found
        labels += [environment.would_progress(slip) for slip in found]
    assert labels and not all(labels)


def test_another_repair_than_the_reference_is_progress(sql: SweBenchEnv) -> None:
    other = FIX.replace("""('"', "'", "`")""", "('`', chr(34), chr(39))")
    outcome = sql.step(edit_action(UTILS, BUG, other))
    assert other != FIX and outcome.progress is True and outcome.remaining == 1 and sql.expert_action() == "submit"


def test_without_tests_the_plan_tells_progress(swebench_folder: Path, tmp_path: Path) -> None:
    options = {"folder": str(swebench_folder), "only": [SQL], "labels": "plan"}
    quiet = make_benchmark("swebench", options, {"train": 1}, max_steps=4)
    (task,) = quiet.make_tasks(1, tmp_path)
    environment = quiet.open(task, tmp_path)
    assert environment.reset().remaining == 3
    assert environment.step("create notes.txt\nx").progress is None  # who knows
    assert environment.expert_action() == "undo notes.txt" and environment.would_progress("submit") is None
    outcome = environment.step(REPAIR.replace("`", "$"))
    assert outcome.progress is None and outcome.score == 0.0
    while not outcome.done:
        outcome = environment.step(environment.expert_action() or "")
        assert outcome.progress is True
    assert outcome.success


def test_a_repair_that_takes_all_memory_is_a_wrong_one(sql: SweBenchEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = sql._runtime
    greedy = FIX + "        val = [bytearray(b'1' * (1 << 20)) for _ in range(1 << 20)]\n"
    small = Runtime(runtime.instance, replace(runtime.where, memory_mb=256))
    found = small.judge(Overlay({UTILS: Entry((runtime.read(UTILS) or b"").replace(BUG.encode(), greedy.encode()))}))
    assert not found.resolved and found.fixed == 0


def test_actions_are_read_with_their_lines() -> None:
    wanted = read_action("edit a/./b.py\n<<<< old\n  x\n==== new\n\n  y\n>>>> end")
    assert (wanted.kind, wanted.path, wanted.old, wanted.text) == ("edit", "a/b.py", "  x\n", "\n  y\n")
    assert read_action("RUN cat <<E\nx\nE").text == "cat <<E\nx\nE"
    assert (read_action("view a.py 3").first, read_action("view a.py 3").last) == (3, 42)
    assert read_action("create a.py\n  x\n").text == "  x\n" and read_action("create a.py").text == ""
