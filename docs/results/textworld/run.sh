#!/usr/bin/env bash
# The experiment of this folder, stage by stage, for the seeds given (default: 1). Run it from the project's root with
# the virtual environment active: docs/results/textworld/run.sh 1 2 3. Each stage makes a new run; one that was killed
# is taken up where it stopped by the same command.
set -euo pipefail
stage() { python -m "r2v_core.stages.$1" --config configs/textworld/study.yaml --partition "$2" "${@:3}"; }
# policy and verifier learn from episodes of up to 15 steps
training=(task_suite collect perturb train_bc train_verifier candidates train_dpo)
# what is judged has six: half as many again as the longest expert solution, so that detours cost the episode
judging=(task_suite router_features train_router evaluate_clean evaluate_noisy)
for seed in "${@:-1}"; do
    for name in "${training[@]}"; do stage "$name" "textworld:expert|$seed"; done
    for name in "${judging[@]}"; do stage "$name" "textworld:expert|$seed" --overrides benchmark.max_steps=6; done
done
stage result_tables "textworld:expert|1" --overrides benchmark.max_steps=6
stage report "textworld:expert|1" --overrides benchmark.max_steps=6
