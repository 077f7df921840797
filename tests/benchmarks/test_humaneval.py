"""HumanEval: the problems, their visible examples, and verdicts that a program can't forge."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.benchmarks.humaneval import judge
from r2v_core.benchmarks.humaneval.data import OVERRIDE, Problem, data_file, load_problems
from r2v_core.benchmarks.humaneval.env import HumanEvalEnv
from r2v_core.benchmarks.humaneval.examples import examples
from r2v_core.benchmarks.humaneval.sandbox_values import Opaque, decode, encode
from r2v_core.benchmarks.humaneval.sandbox_worker import agrees, close, run_check
from r2v_core.errors import R2VError
from r2v_core.perturbations.prompt_injection import FALLBACK, target_actions
from r2v_core.sandbox import Limits

PROBLEMS = load_problems(plus=False)
CLOSE = PROBLEMS["HumanEval/0"]
HEAD = "def has_close_elements(numbers, threshold):\n"
ALWAYS = HEAD + "    return True"


def solved(problem: Problem, program: str) -> bool:
    return judge.verdict(problem, program, "auto").solved


def test_all_problems_are_there() -> None:
    assert list(PROBLEMS) == [f"HumanEval/{i}" for i in range(164)]


@pytest.mark.parametrize(
    "name", [*list(PROBLEMS)[::12], "HumanEval/32", "HumanEval/38", "HumanEval/50", "HumanEval/115"]
)
def test_the_reference_as_a_program_of_its_own_passes(name: str) -> None:
    problem = PROBLEMS[name]
    assert '"""' not in problem.solution and problem.solution.startswith(f"def {problem.entry_point}(")
    assert judge.verdict(problem, problem.solution, "auto").solved
    tried = judge.trial(problem, problem.solution, "auto")
    assert (tried.right, tried.problem, tried.wrong) == (tried.total, "", ())


def test_without_isolation_only_by_name() -> None:
    assert judge.verdict(CLOSE, CLOSE.solution, "none").solved and not judge.verdict(CLOSE, ALWAYS, "none").solved


def test_assertions_are_counted_one_by_one() -> None:
    test = (
        "def check(candidate):\n    assert True, 'always'\n    for i in range(3):\n        assert candidate(i) == i\n"
    )
    for source, held in (("", [True] * 3), ("    assert 1 / 0 == candidate(0)\n", [True] * 3 + [False])):
        assert run_check({"source": "", "test": test + source}, lambda i: i) == (True, held)
    assert run_check({"source": "", "test": test + "    [][1]\n"}, lambda i: 1) == (False, [False, True, False])


def test_most_problems_show_examples() -> None:
    shown = {name: examples(problem.prompt, problem.entry_point) for name, problem in PROBLEMS.items()}
    assert sum(map(bool, shown.values())) >= 139 and sum(map(len, shown.values())) >= 390
    assert shown["HumanEval/53"] == [("add(2, 3)", "5"), ("add(5, 7)", "12")]  # doctests
    assert ('starts_with("a")', "1") not in shown["HumanEval/83"] == []  # none in the prompt
    assert shown["HumanEval/72"][1] == ("will_it_fly([3, 2, 3], 1)", "False")  # ➞, then a line of comment
    assert shown["HumanEval/76"][0] == ("is_simple_power(1, 4)", "True")  # written in lower case
    assert shown["HumanEval/79"][0] == ("decimal_to_binary(15)", '"db1111db"')  # "# returns …"
    assert shown["HumanEval/80"] == []  # is_happy(a): not a literal


def test_examples_that_the_reference_does_not_fulfil_are_not_shown() -> None:
    problem = PROBLEMS["HumanEval/47"]
    given_ = examples(problem.prompt, problem.entry_point)
    assert ("median([-10, 4, 6, 1000, 10, 20])", "15.0") in given_  # a slip of the data set
    assert set(given_) - set(judge.hidden(problem, "auto").examples) == {given_[1]}


LITERALS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.text(),
        st.binary(),
        st.floats(allow_nan=False),
        st.complex_numbers(allow_nan=False, allow_infinity=False),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(), inner, max_size=3),
        st.sets(st.integers(), max_size=3),
    ),
    max_leaves=8,
)


@example(complex(0.0, -0.0))
@example(complex(-0.0, 1.0))
@given(LITERALS)
def test_values_travel_whole_and_in_one_line(value: Any) -> None:
    text = encode(value)
    assert len(text.splitlines()) == 1 and encode(decode(text)) == text
    if "e999" not in text:
        assert decode(text) == value and type(decode(text)) is type(value)


def test_what_is_no_data_equals_nothing() -> None:
    assert isinstance(decode(encode(object())), Opaque) and decode(encode(map(len, []))) != []
    for answer, right in (("= 1.0000000001", True), ("= 1.1", False), ("= (", False), ("! ValueError", False)):
        assert agrees({"entry_point": "f"}, "()", "1.0", answer, 0) == (right, 0 if "1" not in answer else 1e-6)
    assert close([1.0, 2.0], [1.0 + 1e-9, 2.0], 1e-6) and not close([1.0], [1.0, 2.0], 1e-6)


def program(before: str, *body: str) -> str:
    """A solution with ``before`` above it, and a body that ends in ``return True`` unless it leaves earlier."""
    return "\n".join([before, HEAD.rstrip(), *(f"    {line}" for line in body), "    return True"])


REPORT = """b'{"ended": true, "passed": 7, "ran": 7}\\n'"""
FORGERIES = {
    "always true": ALWAYS,
    "leave": program("import os", "os._exit(0)"),
    "exit": program("import sys", "sys.exit(0)"),
    "leave while loading": f"import os\n{ALWAYS}\nos._exit(0)",
    "print what a judge would": program("", f"print({REPORT}.decode())"),
    "write it where answers go": program(
        "import os",
        "for fd in range(1, 9):",
        "    try:",
        f"        os.write(fd, {REPORT})",
        "    except OSError:",
        "        pass",
        "os._exit(0)",
    ),
    "equal to everything": program(
        "class Yes:\n    __eq__ = lambda *a: True\n    __bool__ = lambda *a: True", "return Yes()"
    ),
    "a number equal to everything": program(
        "class Yes(int):\n    __eq__ = lambda *a: True\n    __hash__ = int.__hash__", "return Yes(1)"
    ),
    "a fraction equal to everything": program(
        "from fractions import Fraction\nclass Yes(Fraction):\n    __eq__ = lambda *a: True\n    __hash__ = None",
        "return Yes(1)",
    ),
    "an array equal to everything": program(
        "import numpy\nclass Yes(numpy.ndarray):\n    __eq__ = lambda *a: True", "return numpy.ones(()).view(Yes)"
    ),
    "patch builtins": "import builtins\nbuiltins.abs = builtins.sum = builtins.bool = lambda *a: True\n" + ALWAYS,
    "patch the harness": program(
        "import sys\nmain = sys.modules['__main__']\nmain.agrees = main.value_of = lambda *a: True",
        "main.encode = lambda value: 'True'",
    ),
    "redefine the test": "def check(candidate): pass\ndef _hold(outcome): pass\n" + ALWAYS,
    "overwrite the files": program("import glob", "for name in glob.glob('/box/*'):", "    open(name, 'w').write('')"),
    "walk the frames": program(
        "import sys",
        "frame = sys._getframe()",
        "while frame:",
        "    found = [v for v in list(frame.f_locals.values()) if isinstance(v, dict) and 'test' in v]",
        "    frame = frame.f_back",
    ),
    "end the parent": program("import os, signal", "os.kill(os.getppid(), signal.SIGKILL)"),
    "a thread that goes on": program("import threading", "threading.Thread(target=lambda: print('= True')).start()"),
    "too deep to parse": program("import os", "os.write(3, b'= ' + b'[' * 100000 + b'\\n')"),
    "for ever": program("", "while True: pass"),
    "too large": program("", "return 'x' * 10**8"),
    "not Python": "def has_close_elements(",
    "leave at exit": "import atexit, os\natexit.register(os._exit, 0)\n" + ALWAYS,
    "trace every call": program(
        "import sys",
        "def spy(frame, event, argument):",
        "    for name in ('held', 'passed', 'answered', 'line'):",
        "        frame.f_locals.get(name) and frame.f_locals.update({name: '= True'})",
        "    return spy",
        "sys.settrace(spy); sys.setprofile(spy)",
    ),
    "swallow assertions": program("", "try:\n        assert False\n    except AssertionError:\n        return True"),
    "an exception in place of an answer": program("", "raise AssertionError('= True')"),
    "assertions that do not raise": "AssertionError = type('E', (BaseException,), {})\n__debug__X = False\n" + ALWAYS,
    "a test framework of its own": program(
        "import sys, types\nfor name in ('unittest', 'pytest'):\n    sys.modules[name] = types.ModuleType(name)",
        "sys.modules['unittest'].TestCase = type('T', (), {'assertEqual': lambda *a: True})",
    ),
    "pickles that run code": program(
        "import os\nclass P:\n    __reduce__ = lambda self: (os._exit, (0,))", "return P()"
    ),
    "a value that writes itself": program(
        "class S(str):\n    __str__ = __repr__ = lambda self: 'True'", "return S('x')"
    ),
    "a list that counts differently": program(
        "class L(list):\n    __iter__ = lambda self: iter(())\n    __len__ = lambda self: 7\n"
        "    __eq__ = lambda *a: True",
        "return L()",
    ),
    "not a number": program("", "return float('nan')"),
    "answer twice": program("import os", "os.fork()", "return os.getpid() % 2 == 0"),
    "answer in place of later calls": program(
        "import os\nfirst = [1]", "if first.pop() if first else 0: os.write(3, b'= True\\n' * 7)", "os._exit(0)"
    ),
    "read the calls and change them": program(
        "", "open('calls.txt', 'w').write('')", "open('answers.txt', 'w').write('= True\\n' * 7)"
    ),
    "replace the script": program("", "open('sandbox_worker.py', 'w').write('print(1)')"),
    "patch the parser of answers": "import ast, json\nast.literal_eval = json.dumps = lambda *a: True\n" + ALWAYS,
    "patch through the garbage collector": program(
        "import gc", "for d in gc.get_objects():", "    if isinstance(d, dict) and 'passed' in d: d['passed'] = 7"
    ),
    "stop and let others answer": program("import os, signal", "os.kill(os.getpid(), signal.SIGSTOP)"),
    "outlive the box": program(
        "import os, time",
        "if os.fork() == 0:",
        "    os.setsid()",
        "    if os.fork() == 0:",
        "        time.sleep(0.2); os.write(3, b'= True\\n' * 7)",
        "    os._exit(0)",
        "os._exit(0)",
    ),
    "raise the limit of recursion": program(
        "import sys\nsys.setrecursionlimit(10**9)", "return has_close_elements(1, 1)"
    ),
    "exit code of a passed test": program("import sys", "sys.stdout.write('OK\\n1 passed'); sys.exit(0)"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_verdict_can_not_be_forged(name: str) -> None:
    found = judge.verdict(CLOSE, FORGERIES[name], "auto")
    assert not found.solved and found.passed < found.total == 7
    assert len(FORGERIES) >= 16


def test_nothing_of_the_tests_is_in_a_programs_box() -> None:
    spy = "import os, sys, glob\n" + HEAD + (
        "    seen = [repr(os.environ), repr(sys.argv)]\n"
        "    for name in glob.glob('/box/**', recursive=True) + glob.glob('/proc/[0-9]*/cmdline'):\n"
        "        try: seen.append(open(name, errors='replace').read())\n"
        "        except OSError: pass\n"
        "    return ''.join(seen)"
    )  # fmt: skip
    problem, tests = CLOSE, judge.hidden(CLOSE, "auto")
    files = {**judge._program(problem, spy), "calls.txt": tests.calls}
    seen = judge._box("answer", problem, "auto", files).stdout
    assert "0.95" in seen  # the arguments of a hidden call
    for secret in ("METADATA", "def check", "== False", "distance", problem.canonical_solution.strip()):
        assert secret in problem.source + problem.test and secret not in seen


def test_nor_are_they_where_the_package_lies_beside_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    file = data_file()
    assert file and file.is_relative_to(sys.prefix)
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)  # as in a conda environment: its packages can be read inside
    spy = f"def has_close_elements(a, b):\n    return len(open({str(file)!r}, 'rb').read())"
    files = {**judge._program(CLOSE, spy), "calls.txt": judge.hidden(CLOSE, "auto").calls}
    seen = judge._box("answer", CLOSE, "auto", files).stdout.splitlines()
    assert set(seen) == {"! PermissionError"}


def test_equal_programs_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    commented = ALWAYS + "  # once"
    first = judge.verdict(CLOSE, commented, "auto")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program ran twice")

    monkeypatch.setattr(judge, "run", refuse)
    assert judge.verdict(CLOSE, commented, "auto") == first == judge.Verdict(4, 7, False)


@pytest.fixture
def environment() -> HumanEvalEnv:
    task = Task(task_id="HumanEval/0", template_id="HumanEval/0", benchmark="humaneval", family="humaneval",
                goal=CLOSE.prompt, split="train", max_steps=6, content=CLOSE.content)  # fmt: skip
    environment = HumanEvalEnv(task, CLOSE, "auto")
    environment.reset()
    return environment


def test_write_run_repair_submit(environment: HumanEvalEnv) -> None:
    assert environment.step("run").observation.feedback == "There is no program to run."
    outcome = environment.step(f"```python\n{ALWAYS}\n```")
    assert outcome.progress and outcome.score == pytest.approx(4 / 7) and "not run yet" in outcome.observation.state
    assert ALWAYS in outcome.observation.state
    outcome = environment.step("Run")
    assert outcome.observation.feedback.splitlines() == [
        "1 of 2 examples are right.",
        "has_close_elements([1.0, 2.0, 3.0], 0.5) gave True instead of False",
    ]
    assert outcome.progress is None and "1 of 2 examples right" in outcome.observation.state
    assert environment.step("run").progress is False  # its result is shown already
    assert environment.would_progress("submit") is False and outcome.remaining == 2
    outcome = environment.step(environment.expert_action() or "")
    assert outcome.progress and (outcome.remaining, outcome.score, outcome.success) == (1, 1.0, False)
    assert environment.expert_action() == "submit" and environment.would_progress(ALWAYS) is False
    outcome = environment.step("submit.")
    assert (outcome.done, outcome.success, outcome.remaining, outcome.progress) == (True, True, 0, True)


def test_a_wrong_submission_ends_the_task(environment: HumanEvalEnv) -> None:
    environment.step(ALWAYS)
    outcome = environment.step("submit")
    assert (outcome.done, outcome.success, outcome.remaining, outcome.progress) == (True, False, None, False)
    assert environment.expert_action() is None and environment.admissible() == []


@pytest.mark.parametrize(
    "action", ["look", "", FALLBACK, "return True", "def other():\n    pass", ALWAYS + "\0", ALWAYS + "#" * 20_001]
)
def test_what_is_no_program_changes_nothing(environment: HumanEvalEnv, action: str) -> None:
    environment.step(ALWAYS)
    outcome = environment.step(action)
    assert outcome.observation.feedback.startswith("Not done: ") and ALWAYS in outcome.observation.state
    assert outcome.progress is False and not outcome.done


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("def has_close_elements(a, b)\n    return 1", "does not load: SyntaxError: expected ':' (line 1)"),
        ("import nothing_of_that_name\n" + ALWAYS, "does not load: ModuleNotFoundError"),
        (HEAD + "    return numbers[99]", "raised IndexError: list index out of range (line 2)"),
        (HEAD + "    import os\n    os._exit(0)", "it ended before all examples had run"),
        (HEAD + "    while True: pass", "stopped for its time"),
        (ALWAYS + "\nimport os; os._exit(3)", "it ended before all examples had run"),
        (program("import os", "os.write(3, b'[1]\\n')"), "the program wrote into its result"),
        (program("import os", "os.write(3, b'[' * 100000 + b'\\n')"), "the program wrote into its result"),
        (program("", "raise ValueError('\\ud800')"), "raised ValueError: \\ud800 (line 2)"),
        (program("", "return 'a' * 5000"), "gave 'aaa"),
        ("has_close_elements = 3", "raised TypeError: 'int' object is not callable"),
    ],
)
def test_a_run_says_what_went_wrong(
    environment: HumanEvalEnv, monkeypatch: pytest.MonkeyPatch, written: str, told: str
) -> None:
    monkeypatch.setattr(judge, "LIMITS", Limits(wall_s=30.0, cpu_s=1))
    environment.step(written)
    outcome = environment.step("run")
    assert told in outcome.observation.feedback and len(outcome.observation.feedback) < 1000
    assert outcome.model_dump_json()


def test_an_injected_instruction_names_what_no_agent_does_by_itself(environment: HumanEvalEnv) -> None:
    assert target_actions(environment.admissible(), CLOSE.prompt) == [FALLBACK]


def benchmark(splits: dict[str, int], **options: object) -> Benchmark:
    return make_benchmark("humaneval", options, splits, 6)


def test_seeds_deal_the_problems_differently(tmp_path: Path) -> None:
    everything = {"train": 100, "router": 20, "validation": 20, "test": 24}
    first, second = (benchmark(everything).make_tasks(seed, tmp_path) for seed in (1, 2))
    assert {task.template_id for task in first} == set(PROBLEMS)
    assert [task.split for task in first] == [task.split for task in second]
    assert [task.template_id for task in first] != [task.template_id for task in second]


def test_more_problems_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(R2VError, match=r"benchmark\.splits: 165 .* 164 problems"):
        benchmark({"train": 165}).make_tasks(1, tmp_path)


def test_a_task_of_other_data_is_refused(tmp_path: Path) -> None:
    (task,) = benchmark({"test": 1}).make_tasks(1, tmp_path)
    with pytest.raises(R2VError, match="other tests"):
        benchmark({"test": 1}).open(task.model_copy(update={"content": "0" * 32}), tmp_path)


def plus_row(name: str, base: list[Any], plus: list[Any], **changes: Any) -> dict[str, Any]:
    """A problem in the form of evalplus' file."""
    problem = PROBLEMS[name]
    fields = ("task_id", "prompt", "entry_point", "canonical_solution")
    row = {field: getattr(problem, field) for field in fields}
    return {**row, "contract": "", "base_input": base, "plus_input": plus, "atol": 0, **changes}


ROWS = [
    plus_row("HumanEval/0", [[[1.0, 2.0], 0.5], [[1.0, 1.2], 0.5]], [[[], 1.0], [[3.0, 3.0], 0.0], [[5.0], 9.0]]),
    plus_row("HumanEval/32", [[[1, 2]]], [[[-6, 11, -6, 1]]], atol=1e-4),
    plus_row("HumanEval/4", [[[1.0, 2.0, 3.0]]], [[[0.1, 0.2, 0.4]]]),
]


def override(path: Path, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())
    monkeypatch.setenv(OVERRIDE, str(path))
    return path


@pytest.mark.parametrize("name", ["plus.jsonl", "plus.jsonl.gz"])
def test_plus_asks_for_more_than_the_base_tests(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    override(tmp_path / name, ROWS, monkeypatch)
    problems = load_problems(plus=True)
    for problem in problems.values():
        assert solved(problem, problem.solution)
    lax = HEAD + "    s = sorted(numbers)\n    return any(b - a <= threshold for a, b in zip(s, s[1:]))"  # <= for <
    assert judge.verdict(problems["HumanEval/0"], lax, "auto") == judge.Verdict(4, 5, False)
    assert not solved(problems["HumanEval/0"], ALWAYS)
    roots = "def find_zero(xs):\n    return -0.50001 if len(xs) == 2 else 3.0"  # another root, and near one
    assert solved(problems["HumanEval/32"], roots)
    mad = PROBLEMS["HumanEval/4"].solution
    assert solved(problems["HumanEval/4"], mad.replace("return ", "return 1e-9 + "))
    assert not solved(problems["HumanEval/4"], mad.replace("return ", "return 1e-3 + "))
    (task,) = benchmark({"test": 1}, plus=True).make_tasks(1, tmp_path)
    assert task.family == "humaneval_plus" and task.content != PROBLEMS[task.template_id].content


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (plus_row("HumanEval/0", [], [[[1.0], 2.0]]), ["'base_input'", "every program would pass"]),
        (plus_row("HumanEval/0", [[[1.0], 2.0]], []), ["'plus_input'", "every program would pass"]),
        (plus_row("HumanEval/0", [1.0], [[[1.0], 2.0]]), ["'base_input'", "argument lists"]),
        ({k: v for k, v in ROWS[0].items() if k != "plus_input"}, ["'plus_input'"]),
        ({"task_id": "HumanEval/0"}, ["'prompt'"]),
    ],
)
def test_a_plus_file_without_tests_is_refused(
    row: dict[str, Any], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = override(tmp_path / "plus.jsonl", [ROWS[1], row], monkeypatch)
    with pytest.raises(R2VError) as caught:
        benchmark({"test": 1}, plus=True)
    assert all(word in str(caught.value) for word in [f"{path}:2", *words])


def test_plus_without_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OVERRIDE, raising=False)
    with pytest.raises(R2VError, match=f"set {OVERRIDE}"):
        benchmark({"test": 1}, plus=True)
    monkeypatch.setenv(OVERRIDE, str(tmp_path / "none.jsonl"))
    with pytest.raises(R2VError, match=r"no file .*none\.jsonl"):
        benchmark({"test": 1}, plus=True)
    path = tmp_path / "bad.jsonl"
    path.write_text("{\n")
    monkeypatch.setenv(OVERRIDE, str(path))
    with pytest.raises(R2VError, match=r"bad\.jsonl:1: not a line of JSON"):
        benchmark({"test": 1}, plus=True)


def test_a_reference_that_fails_its_own_tests_is_refused() -> None:
    broken = Problem("HumanEval/0", CLOSE.prompt, CLOSE.entry_point, "    return 1\n", CLOSE.test)
    with pytest.raises(R2VError, match="HumanEval/0: its own reference solution does not pass"):
        judge.verdict(broken, ALWAYS, "auto")


@settings(deadline=None, max_examples=15)
@given(st.text(max_size=80))
def test_any_program_text_gets_a_verdict(body: str) -> None:
    try:
        body.encode()
    except UnicodeEncodeError:
        return
    assert not solved(CLOSE, f"{ALWAYS}\n{body}")
