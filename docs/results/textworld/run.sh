#!/usr/bin/env bash
# The experiment of this folder, stage by stage, for the seeds given (default: 2). Run it from the project's root with
# the virtual environment active: docs/results/textworld/run.sh 2 3. Each stage makes a new run; one that was killed is
# taken up where it stopped by the same command.
set -euo pipefail
stages=(task_suite collect perturb train_bc train_verifier candidates train_dpo router_features train_router
    evaluate_clean evaluate_noisy result_tables report)
for seed in "${@:-2}"; do
    for name in "${stages[@]}"; do
        python -m "r2v_core.stages.$name" --config configs/textworld/study.yaml --partition "textworld:expert|$seed"
    done
done
