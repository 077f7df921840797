"""Do a judge model and the trained verifier agree about candidate actions, and whom does the environment bear out?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from r2v_core.teachers.judge import UNREADABLE


def agreement(
    judge: Sequence[Sequence[float]], verifier: Sequence[Sequence[float]], progress: Sequence[Sequence[bool | None]]
) -> dict[str, float]:
    """Agreement over states, each with its candidates' scores by judge and verifier and the environment's word on them.

    Returns:
        ``judge_undecided``: states whose candidates the judge gave 0.5 throughout, as it does where it could not be
        read; ``judge_same_best``: share of states where its best-scored candidates and the verifier's overlap;
        ``judge_correlation``: Spearman's, over all candidates; ``judge_auc`` and ``verifier_auc``: of telling the
        candidates that make progress from the others. What can't be computed (constant scores, one class) is left out.
    """
    pairs = [(np.array(j), np.array(v)) for j, v in zip(judge, verifier, strict=True) if len(j)]
    found = {"judge_undecided": float(sum(bool((j == UNREADABLE).all()) for j, _ in pairs))}
    if not pairs:
        return found
    same = [bool(((j == j.max()) & (v == v.max())).any()) for j, v in pairs]
    found["judge_same_best"] = sum(same) / len(same)
    ours, theirs = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    if len(set(ours)) > 1 and len(set(theirs)) > 1:
        found["judge_correlation"] = float(spearmanr(ours, theirs).statistic)
    truth = [label for labels in progress for label in labels]
    known = np.array([label is not None for label in truth], dtype=bool)
    labels = np.array([bool(label) for label in truth])[known]
    if len(set(labels)) > 1:
        found["judge_auc"] = float(roc_auc_score(labels, ours[known]))
        found["verifier_auc"] = float(roc_auc_score(labels, theirs[known]))
    return found
