"""The Arrow form of the registry's rows, table by table, as they are inserted."""

from __future__ import annotations

import pyarrow as pa

_TEXT, _INT, _REAL, _BOOL, _TIME = pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.timestamp("us")
_TEXTS = pa.list_(pa.string())

RUNS = pa.schema(
    [(name, _TEXT) for name in ("run_id", "stage", "benchmark", "provider", "model")]
    + [
        ("seed", _INT),
        ("partition", _TEXT),
        ("variant", _TEXT),
        ("status", _TEXT),
        ("created_at", _TIME),
        ("finished_at", _TIME),
    ]
    + [("output_dir", _TEXT), ("config_path", _TEXT), ("config", _TEXT), ("config_digest", _TEXT)]
    + [("overrides", _TEXTS), ("fingerprint", _TEXT), ("code_version", _TEXT), ("git_commit", _TEXT)]
    + [("digest", _TEXT), ("n_episodes", _INT), ("n_success", _INT), ("n_steps", _INT), ("success_rate", _REAL)]
    + [("counts", _TEXT), ("cost_usd", _REAL), ("wall_time_s", _REAL), ("host", _TEXT), ("slurm_job_id", _TEXT)]
    + [("dagster_run_id", _TEXT), ("tags", _TEXTS), ("notes", _TEXT), ("error", _TEXT), ("schema_version", _INT)]
    + [("manifest_digest", _TEXT), ("manifest", _TEXT)]
)
EPISODES = pa.schema(
    [("run_id", _TEXT), ("line", _INT), ("episode_id", _TEXT), ("benchmark", _TEXT), ("task_id", _TEXT)]
    + [(name, _TEXT) for name in ("template_id", "split", "family", "teacher_provider", "teacher_model", "method")]
    + [("success", _BOOL), ("score", _REAL), ("truncated", _BOOL), ("n_steps", _INT), ("n_teacher_steps", _INT)]
    + [("cost", _REAL), ("cost_usd", _REAL), ("tokens_in", _INT), ("tokens_out", _INT), ("latency_s", _REAL)]
    + [
        ("action_hash", _TEXT),
        ("action_key", pa.uint64()),
        ("perturbation_seed", _INT),
        ("perturbations", _TEXTS),
        ("seed", _INT),
        ("source_run_id", _TEXT),
        ("source_episode_id", _TEXT),
    ]
    + [("path", _TEXT), ("byte_offset", _INT), ("byte_length", _INT)]
)
ARTIFACTS = pa.schema(
    [(name, _TEXT) for name in ("run_id", "name", "path", "kind")] + [("size_bytes", _INT), ("digest", _TEXT)]
)
LINEAGE = pa.schema(
    [(name, _TEXT) for name in ("run_id", "role", "upstream_run_id", "upstream_digest", "upstream_path")]
)
METRICS_ROWS = pa.schema([("run_id", _TEXT), ("line", _INT), ("step", _INT), ("name", _TEXT), ("value", _REAL)])
EVALUATION_ROWS = pa.schema(
    [(name, _TEXT) for name in ("run_id", "method", "benchmark", "condition", "metric")]
    + [("line", _INT), ("seed", _INT), ("value", _REAL), ("ci_low", _REAL), ("ci_high", _REAL), ("n", _INT)]
)
SLURM_JOBS = pa.schema(
    [(name, _TEXT) for name in ("job_id", "run_id", "name", "state", "partition", "account", "nodes")]
    + [("cpus", _INT), ("gpus", _INT), ("submitted_at", _TIME), ("started_at", _TIME), ("ended_at", _TIME)]
    + [(name, _REAL) for name in ("queue_wait_s", "elapsed_s", "max_memory_mb", "cpu_efficiency")]
    + [("exit_code", _TEXT), ("detail", _TEXT)]
)
