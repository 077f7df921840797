"""The command lines and queries of README and docs, and which of them the tests do not run as they stand.

Every command in a fenced block is run in a small finished project (``tests/assets/test_pipeline.py``) unless a pattern
here says why not. A new command is thus run, and fails the test where it can't be.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)

NOT_RUN = {
    # what the set-up of the tests does itself
    r"source \S+/activate|make setup|PYTHON=\S+ make setup": "the tests' own environment was made this way",
    r"pip install ": "installs packages; .ci/run does",
    r"conda ": "conda was never at hand",
    # what another test runs
    r"make demo": "the fixture of test_pipeline.py runs `r2v demo` after the backfill; make adds the set-up",
    r"(R2V_ON_FAILURE=\S+ )?make ui|R2V_ON_FAILURE='[^']*' make ui": "what it runs: tests/assets/test_stopping.py",
    r"dg ": "needs a checkout of its own: tests/assets/test_definitions.py",
    r"r2v compare |.*--select variant_comparison": "several experiments with results: tests/results/test_compare.py",
    r"r2v learning-curve ": "more router templates than that project has: tests/router/test_learning_curve.py",
    r"r2v registry import ": "an old registry: tests/registry/test_legacy.py",
    r"r2v demo --partition '(miniwob|swebench|textworld:smollm2-taught)": "hours: tests/stages has small ones",
    r"r2v demo --partition '[\w:-]+@": "a hub and a GPU: tests/docs/test_published.py resolves them",
    r"python -m \S+task_suite --config configs/swebench": "needs built instances: tests/stages/test_swebench_stages.py",
    r"r2v teachers --ask ": "a server that answers: tests/teachers/test_readiness.py",
    r"make swebench|r2v swebench build": "builds for minutes: the fixture swebench_folder does four of them",
    r"r2v plan 'textworld:expert@": "a variant of the shipped list: tests/stages/test_forecast.py plans them all",
    r".*--partition 'webarena:gpt-4o": "a paid key, the sites: tests/stages/test_webarena_stages.py has its own",
    r"export WA_": "addresses of sites that are not at hand",
    r"export R2V_COMPUTE=slurm|R2V_COMPUTE=slurm |r2v slurm (run|shell|status|cancel)": "a cluster: tests/slurm",
    r"make (test|test-fast|lint)": "what runs these very tests",
    r".*--select 'group:ablation'": "thirteen ablations, hours: test_pipeline.py makes one",
    r"python -m r2v_core.stages.ablation ": "test_pipeline.py makes an ablation as an asset, by the same function",
    r"make (vllm|inspect)": "make test makes that environment first",
    r"python -m \S+candidates --overrides slm.engine=vllm": "a real vLLM: tests/engines/test_vllm.py",
    # what stays up, or needs an account
    r"\S+inspect view ": "a server that stays; tests/registry/test_eval_logs.py reads the logs",
    r"r2v serve ": "a server that stays; tests/assets/test_pipeline.py starts one",
    r"tensorboard ": "a server that stays; tests/training/test_tracking.py reads what it shows",
    r"wandb login|WANDB_MODE=online|wandb sync outputs": "an account at W&B",
    r"mkdir -p ~/r2v-lab|install -m 600|DAGSTER_HOME=|R2V_DAGSTER_|EOF": "tests/assets/test_lab.py does the same",
    r"systemctl |loginctl ": "services of a machine that boots with systemd; the units were verified, not run",
}
"""Beginning of a command → why it is not run here."""

NOT_ASKED = {r"CREATE (USER|DATABASE)": "for PostgreSQL: tests/assets/test_lab.py makes its own"}
"""Beginning of a query → why it is not asked of the registry."""


def _blocks(*languages: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block in one of these languages."""
    found = []
    for page in PAGES:
        for indent, language, body in _FENCE.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                lines = [line.removeprefix(indent) for line in body.splitlines()]
                found.append((page.relative_to(ROOT).as_posix(), "\n".join(lines)))
    return found


def _commands(text: str) -> list[str]:
    """The commands of a block, each in one piece however many lines it is written on, without comments."""
    found, pending = [], ""
    for line in text.splitlines():
        pending += line + "\n"
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:
            continue  # a quotation goes on
        if pending.rstrip().endswith("\\"):
            continue
        if words:
            found.append(re.sub(r"\s+#\s.*$", "", pending.strip(), flags=re.MULTILINE))
        pending = ""
    assert not pending.strip(), pending
    return found


def _why_not(command: str, reasons: dict[str, str]) -> str | None:
    return next((why for pattern, why in reasons.items() if re.match(pattern, command)), None)


COMMANDS = [(page, command) for page, text in _blocks("bash", "sh", "console") for command in _commands(text)]
QUERIES = [(page, text.strip()) for page, text in _blocks("sql")]
RUN = [command for _, command in COMMANDS if _why_not(command, NOT_RUN) is None]
"""Those that are run, in the order of the pages."""
ASKED = [query for _, query in QUERIES if _why_not(query, NOT_ASKED) is None]
