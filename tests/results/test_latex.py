"""main_table.tex: its structure, and a real compilation with pdflatex and booktabs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd

from r2v_core.results.evaluations import EVALUATION_COLUMNS
from r2v_core.results.latex import escape, main_table_latex, standalone


def long_table(methods: dict[str, float], benchmark: str = "text_world & co") -> pd.DataFrame:
    rows = []
    for method, rate in methods.items():
        key = [method, benchmark, "noisy", "1"]
        rows.append([*key, "success_rate", rate, rate - 0.1, rate + 0.1, 20, float("nan")])
        rows.append([*key, "cvar_failure", 1 - rate, float("nan"), float("nan"), 20, float("nan")])
        rows.append([*key, "n_tasks", 5, float("nan"), float("nan"), 20, float("nan")])
        rows.append([*key, "n_z", 4, float("nan"), float("nan"), 20, float("nan")])
    return pd.DataFrame(rows, columns=EVALUATION_COLUMNS)


METHODS = {"r2v": 0.8, "slm_only": 0.5, "oracle_router": 0.9, "50%_{weird}~method^#$\\": 0.6}


def test_structure() -> None:
    text = main_table_latex(long_table(METHODS), alpha=0.2, confidence=0.95)
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    columns = len(re.search(r"\\begin\{tabular\}\{(l r*|l*r*)\}", text)[1])  # type: ignore[index]
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].replace(r"\&", "").splitlines()
    cells = [line for line in body if line.strip() and "multicolumn" not in line]
    assert len(cells) == 2 * len(METHODS) and all(line.count("&") == columns - 1 for line in cells)
    assert all(line.rstrip().endswith((r"\\", r"\\[2pt]")) for line in cells)
    assert r"text\_world \& co" in text and "[70.0, 90.0]" in text


def test_intervals_of_worst_worlds_come_with_a_warning() -> None:
    table = long_table(METHODS)
    warning = "worst seed and CVaR can hold the truth less often"
    assert warning not in main_table_latex(table, alpha=0.2, confidence=0.95)
    table.loc[table["metric"] == "cvar_failure", ["ci_low", "ci_high"]] = [0.1, 0.4]
    assert warning in main_table_latex(table, alpha=0.2, confidence=0.95)


def test_best_is_bold_and_the_oracle_is_not() -> None:
    text = main_table_latex(long_table(METHODS), alpha=0.2, confidence=0.95)
    assert re.findall(r"\\textbf\{([^}]*)\}", text) == ["80.0", "20.0"]  # r2v's success and CVaR


def test_escape_leaves_no_command_behind() -> None:
    assert escape("a_b & 5% #1 $x {y} ~ ^") == r"a\_b \& 5\% \#1 \$x \{y\} \textasciitilde{} \textasciicircum{}"
    assert escape(r"\input{x}") == r"\textbackslash{}input\{x\}"


def test_it_compiles(tmp_path: Path) -> None:
    text = main_table_latex(long_table(METHODS), alpha=0.2, confidence=0.95)
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    (tmp_path / "main_table.tex").write_text(text)
    (tmp_path / "doc.tex").write_text(standalone("main_table.tex"))
    assert r"\input{main_table.tex}" in (tmp_path / "doc.tex").read_text()
    pdflatex = shutil.which("pdflatex")
    assert pdflatex, "no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended"
    done = subprocess.run(
        [pdflatex, "-interaction=nonstopmode", "-halt-on-error", "doc.tex"], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "doc.pdf").stat().st_size > 10_000
    assert b"Overfull" not in done.stdout, "the table is wider than the page"
