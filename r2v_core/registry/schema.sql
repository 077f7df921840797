-- The run registry, schema version 3. Times are UTC. Paths are relative to the project root where they lie below it.
-- Every row derives from files on disk alone (manifests and the data beside them), so that a rebuilt registry equals
-- the one it replaces.

CREATE TABLE schema_info (version INTEGER NOT NULL);
COMMENT ON TABLE schema_info IS 'One row: the version of this schema';
COMMENT ON COLUMN schema_info.version IS 'Schema version; a program refuses a file that is newer than itself';

CREATE TABLE totals (n_runs BIGINT NOT NULL, n_episodes BIGINT NOT NULL, n_unique BIGINT NOT NULL);
COMMENT ON TABLE totals IS 'One row, brought up to date by every transaction: what is asked most costs no scan';
COMMENT ON COLUMN totals.n_runs IS 'Runs';
COMMENT ON COLUMN totals.n_episodes IS 'Episodes';
COMMENT ON COLUMN totals.n_unique IS 'Different action sequences among all episodes';

CREATE TABLE runs (
    run_id VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    benchmark VARCHAR NOT NULL,
    provider VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    seed BIGINT NOT NULL,
    partition VARCHAR NOT NULL,
    variant VARCHAR NOT NULL DEFAULT '',
    status VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL,
    finished_at TIMESTAMP,
    output_dir VARCHAR NOT NULL,
    config_path VARCHAR,
    config JSON,
    config_digest VARCHAR,
    overrides VARCHAR[],
    fingerprint VARCHAR,
    code_version VARCHAR,
    git_commit VARCHAR,
    digest VARCHAR,
    n_episodes BIGINT NOT NULL,
    n_success BIGINT NOT NULL,
    n_steps BIGINT NOT NULL,
    success_rate DOUBLE NOT NULL,
    counts JSON,
    cost_usd DOUBLE NOT NULL,
    wall_time_s DOUBLE NOT NULL,
    host VARCHAR,
    slurm_job_id VARCHAR,
    dagster_run_id VARCHAR,
    tags VARCHAR[],
    notes VARCHAR,
    error VARCHAR,
    schema_version INTEGER,
    manifest_digest VARCHAR NOT NULL,
    manifest JSON NOT NULL
);
COMMENT ON TABLE runs IS 'One row a run of one stage: its manifest';
COMMENT ON COLUMN runs.run_id IS 'Unique name of the run and of its directory';
COMMENT ON COLUMN runs.stage IS 'Pipeline stage, e.g. collect, train_bc, evaluate_noisy';
COMMENT ON COLUMN runs.benchmark IS 'Benchmark, e.g. textworld';
COMMENT ON COLUMN runs.provider IS 'Teacher provider, e.g. env';
COMMENT ON COLUMN runs.model IS 'Teacher model, e.g. expert';
COMMENT ON COLUMN runs.seed IS 'Seed of the replicate';
COMMENT ON COLUMN runs.partition IS '<benchmark>:<teacher>|<seed>';
COMMENT ON COLUMN runs.variant IS 'Variant of the experiment; empty: the experiment itself';
COMMENT ON COLUMN runs.status IS 'running, done, failed or partial (stopped, can be resumed)';
COMMENT ON COLUMN runs.created_at IS 'When the run began, UTC';
COMMENT ON COLUMN runs.finished_at IS 'When it ended, UTC; NULL while running';
COMMENT ON COLUMN runs.output_dir IS 'Run directory';
COMMENT ON COLUMN runs.config_path IS 'Config file it was started with';
COMMENT ON COLUMN runs.config IS 'Merged config snapshot, secrets excluded';
COMMENT ON COLUMN runs.config_digest IS 'Digest of the config snapshot';
COMMENT ON COLUMN runs.overrides IS 'Config overrides given on the command line';
COMMENT ON COLUMN runs.fingerprint IS 'Digest of code version, config, partition and input digests';
COMMENT ON COLUMN runs.code_version IS 'Version of the stage''s code';
COMMENT ON COLUMN runs.git_commit IS 'Commit of the project at the start';
COMMENT ON COLUMN runs.digest IS 'Content digest of what the run produced: the Dagster data version';
COMMENT ON COLUMN runs.n_episodes IS 'Episodes produced, as the manifest says';
COMMENT ON COLUMN runs.n_success IS 'Successful episodes, as the manifest says';
COMMENT ON COLUMN runs.n_steps IS 'Steps of all episodes, as the manifest says';
COMMENT ON COLUMN runs.success_rate IS 'n_success / n_episodes; 0 without episodes';
COMMENT ON COLUMN runs.counts IS 'Stage-specific numbers';
COMMENT ON COLUMN runs.cost_usd IS 'Measured dollars';
COMMENT ON COLUMN runs.wall_time_s IS 'Wall time over all attempts, seconds';
COMMENT ON COLUMN runs.host IS 'Machine it ran on';
COMMENT ON COLUMN runs.slurm_job_id IS 'SLURM job, where there was one';
COMMENT ON COLUMN runs.dagster_run_id IS 'Dagster run, where there was one';
COMMENT ON COLUMN runs.tags IS 'Tags given by people';
COMMENT ON COLUMN runs.notes IS 'Free text';
COMMENT ON COLUMN runs.error IS 'Why it failed or stopped';
COMMENT ON COLUMN runs.schema_version IS 'Schema version that the manifest was read as';
COMMENT ON COLUMN runs.manifest_digest IS 'Digest of the manifest file''s bytes when it was registered';
COMMENT ON COLUMN runs.manifest IS 'The manifest without its config; infinite and undefined numbers as text';

CREATE TABLE episodes (
    run_id VARCHAR NOT NULL,
    line BIGINT NOT NULL,
    episode_id VARCHAR NOT NULL,
    benchmark VARCHAR NOT NULL,
    task_id VARCHAR NOT NULL,
    template_id VARCHAR NOT NULL,
    split VARCHAR,
    family VARCHAR,
    teacher_provider VARCHAR,
    teacher_model VARCHAR,
    method VARCHAR,
    success BOOLEAN NOT NULL,
    score DOUBLE NOT NULL,
    truncated BOOLEAN NOT NULL,
    n_steps BIGINT NOT NULL,
    n_teacher_steps BIGINT NOT NULL,
    cost DOUBLE NOT NULL,
    cost_usd DOUBLE NOT NULL,
    tokens_in BIGINT NOT NULL,
    tokens_out BIGINT NOT NULL,
    latency_s DOUBLE NOT NULL,
    action_hash VARCHAR NOT NULL,
    action_key UBIGINT NOT NULL,
    perturbation_seed BIGINT,
    perturbations VARCHAR[] NOT NULL,
    seed BIGINT NOT NULL,
    source_run_id VARCHAR,
    source_episode_id VARCHAR,
    path VARCHAR NOT NULL,
    byte_offset BIGINT,
    byte_length BIGINT
);
COMMENT ON TABLE episodes IS 'One row an episode; the record itself stays in its run''s file';
COMMENT ON COLUMN episodes.run_id IS 'Run whose directory holds the record';
COMMENT ON COLUMN episodes.line IS '1-based line in the JSONL file (row in a Parquet file): file order';
COMMENT ON COLUMN episodes.episode_id IS 'Unique within its run';
COMMENT ON COLUMN episodes.benchmark IS 'Benchmark';
COMMENT ON COLUMN episodes.task_id IS 'Task attempted';
COMMENT ON COLUMN episodes.template_id IS 'Task template: what the splits are made by';
COMMENT ON COLUMN episodes.split IS 'train, router, validation or test';
COMMENT ON COLUMN episodes.family IS 'Family of tasks';
COMMENT ON COLUMN episodes.teacher_provider IS 'Teacher provider';
COMMENT ON COLUMN episodes.teacher_model IS 'Teacher model';
COMMENT ON COLUMN episodes.method IS 'Method evaluated, e.g. r2v, slm_only; NULL outside evaluations';
COMMENT ON COLUMN episodes.success IS 'The benchmark''s own verdict';
COMMENT ON COLUMN episodes.score IS 'Benchmark''s score in [0, 1]';
COMMENT ON COLUMN episodes.truncated IS 'Ended by the step limit';
COMMENT ON COLUMN episodes.n_steps IS 'Steps';
COMMENT ON COLUMN episodes.n_teacher_steps IS 'Steps whose action the teacher chose';
COMMENT ON COLUMN episodes.cost IS 'Cost units over all steps (SLM step 1, teacher step 50)';
COMMENT ON COLUMN episodes.cost_usd IS 'Measured dollars over all steps';
COMMENT ON COLUMN episodes.tokens_in IS 'Prompt tokens over all steps';
COMMENT ON COLUMN episodes.tokens_out IS 'Generated tokens over all steps';
COMMENT ON COLUMN episodes.latency_s IS 'Wall seconds to decide and act, over all steps';
COMMENT ON COLUMN episodes.action_hash IS 'SHA-256 of the JSON list of action texts: equal hashes are duplicates';
COMMENT ON COLUMN episodes.action_key IS 'First 64 bits of action_hash, to sort and compare quickly';
COMMENT ON COLUMN episodes.perturbation_seed IS 'Perturbation seed z; NULL for clean episodes';
COMMENT ON COLUMN episodes.perturbations IS 'Perturbation types that struck, sorted, as family/operator';
COMMENT ON COLUMN episodes.seed IS 'Seed of the replicate';
COMMENT ON COLUMN episodes.source_run_id IS 'Run that the episode was copied or perturbed from; NULL where it was played in this run';
COMMENT ON COLUMN episodes.source_episode_id IS 'The episode of that run; NULL where it was played in this run';
COMMENT ON COLUMN episodes.path IS 'File that holds the record';
COMMENT ON COLUMN episodes.byte_offset IS 'Where its line begins, bytes; NULL in a Parquet file';
COMMENT ON COLUMN episodes.byte_length IS 'Length of its line without the newline, bytes; NULL in a Parquet file';

CREATE TABLE artifacts (
    run_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    size_bytes BIGINT,
    digest VARCHAR
);
COMMENT ON TABLE artifacts IS 'Files and directories that runs produced';
COMMENT ON COLUMN artifacts.run_id IS 'Run that produced it';
COMMENT ON COLUMN artifacts.name IS 'Name in the manifest; the file name for data files the manifest does not name';
COMMENT ON COLUMN artifacts.path IS 'Where it lies';
COMMENT ON COLUMN artifacts.kind IS 'file, directory, or missing when it was registered';
COMMENT ON COLUMN artifacts.size_bytes IS 'Size, bytes; of all files for a directory';
COMMENT ON COLUMN artifacts.digest IS 'Digest of its bytes when registered; NULL while the run may still write it';

CREATE TABLE lineage (
    run_id VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    upstream_run_id VARCHAR NOT NULL,
    upstream_digest VARCHAR NOT NULL,
    upstream_path VARCHAR NOT NULL
);
COMMENT ON TABLE lineage IS 'Which run read which run';
COMMENT ON COLUMN lineage.run_id IS 'Run that read';
COMMENT ON COLUMN lineage.role IS 'What it was read as, e.g. tasks, policy, perturbed';
COMMENT ON COLUMN lineage.upstream_run_id IS 'Run that was read; it need not be registered';
COMMENT ON COLUMN lineage.upstream_digest IS 'The upstream''s digest when it was read';
COMMENT ON COLUMN lineage.upstream_path IS 'The upstream''s run directory when it was read';

CREATE TABLE metrics (
    run_id VARCHAR NOT NULL,
    line BIGINT NOT NULL,
    step BIGINT,
    name VARCHAR NOT NULL,
    value DOUBLE
);
COMMENT ON TABLE metrics IS 'Training curves, one row a step and metric (training_log.jsonl)';
COMMENT ON COLUMN metrics.run_id IS 'Training run';
COMMENT ON COLUMN metrics.line IS '1-based line in the log';
COMMENT ON COLUMN metrics.step IS 'Optimiser step, or epoch where the log has no step';
COMMENT ON COLUMN metrics.name IS 'Metric, e.g. loss, learning_rate';
COMMENT ON COLUMN metrics.value IS 'Its value; NULL where the log has null';

CREATE TABLE evaluations (
    run_id VARCHAR NOT NULL,
    line BIGINT NOT NULL,
    method VARCHAR,
    benchmark VARCHAR,
    condition VARCHAR,
    seed BIGINT,
    metric VARCHAR,
    value DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    n BIGINT
);
COMMENT ON TABLE evaluations IS 'Result tables, one row a metric (evaluations.jsonl)';
COMMENT ON COLUMN evaluations.run_id IS 'Run that computed it';
COMMENT ON COLUMN evaluations.line IS '1-based line in the file';
COMMENT ON COLUMN evaluations.method IS 'Method, e.g. r2v, slm_only';
COMMENT ON COLUMN evaluations.benchmark IS 'Benchmark';
COMMENT ON COLUMN evaluations.condition IS 'clean or noisy';
COMMENT ON COLUMN evaluations.seed IS 'Seed; NULL where the row is over all seeds';
COMMENT ON COLUMN evaluations.metric IS 'Metric, e.g. success_rate';
COMMENT ON COLUMN evaluations.value IS 'Point estimate';
COMMENT ON COLUMN evaluations.ci_low IS 'Lower end of its confidence interval';
COMMENT ON COLUMN evaluations.ci_high IS 'Upper end of its confidence interval';
COMMENT ON COLUMN evaluations.n IS 'Observations behind it';

CREATE TABLE slurm_jobs (
    job_id VARCHAR NOT NULL,
    run_id VARCHAR NOT NULL,
    name VARCHAR,
    state VARCHAR,
    partition VARCHAR,
    account VARCHAR,
    nodes VARCHAR,
    cpus BIGINT,
    gpus BIGINT,
    submitted_at TIMESTAMP,
    started_at TIMESTAMP,
    ended_at TIMESTAMP,
    queue_wait_s DOUBLE,
    elapsed_s DOUBLE,
    max_memory_mb DOUBLE,
    cpu_efficiency DOUBLE,
    exit_code VARCHAR,
    detail JSON
);
COMMENT ON TABLE slurm_jobs IS 'SLURM jobs behind runs, one row a submission (slurm_job.json, else the job id of the manifest alone)';
COMMENT ON COLUMN slurm_jobs.job_id IS 'SLURM job id';
COMMENT ON COLUMN slurm_jobs.run_id IS 'Run it worked on';
COMMENT ON COLUMN slurm_jobs.name IS 'Job name';
COMMENT ON COLUMN slurm_jobs.state IS 'SLURM state, e.g. COMPLETED, TIMEOUT';
COMMENT ON COLUMN slurm_jobs.partition IS 'SLURM partition (queue)';
COMMENT ON COLUMN slurm_jobs.account IS 'SLURM account';
COMMENT ON COLUMN slurm_jobs.nodes IS 'Node list';
COMMENT ON COLUMN slurm_jobs.cpus IS 'CPU cores allocated';
COMMENT ON COLUMN slurm_jobs.gpus IS 'GPUs allocated';
COMMENT ON COLUMN slurm_jobs.submitted_at IS 'Submission, UTC';
COMMENT ON COLUMN slurm_jobs.started_at IS 'Start, UTC';
COMMENT ON COLUMN slurm_jobs.ended_at IS 'End, UTC';
COMMENT ON COLUMN slurm_jobs.queue_wait_s IS 'From submission to start, seconds';
COMMENT ON COLUMN slurm_jobs.elapsed_s IS 'Run time, seconds';
COMMENT ON COLUMN slurm_jobs.max_memory_mb IS 'Peak resident memory, MB';
COMMENT ON COLUMN slurm_jobs.cpu_efficiency IS 'CPU time over elapsed time x cores, 0 to 1';
COMMENT ON COLUMN slurm_jobs.exit_code IS 'Exit code as SLURM writes it';
COMMENT ON COLUMN slurm_jobs.detail IS 'All that slurm_job.json says of the job';

CREATE VIEW latest_runs AS
SELECT * FROM runs
WHERE status = 'done'
QUALIFY row_number() OVER (PARTITION BY stage, partition, provider, model ORDER BY created_at DESC, run_id DESC) = 1;
COMMENT ON VIEW latest_runs IS 'The newest finished run of each stage, partition, provider and model; columns of runs';

CREATE VIEW success_by_model AS
SELECT benchmark, stage, provider, model,
    count(*) AS n_runs,
    sum(n_episodes)::BIGINT AS n_episodes,
    sum(n_success)::BIGINT AS n_success,
    round(sum(n_success) / nullif(sum(n_episodes), 0), 4) AS success_rate
FROM runs
WHERE status IN ('done', 'partial') AND n_episodes > 0
GROUP BY ALL ORDER BY ALL;
COMMENT ON VIEW success_by_model IS 'Success by benchmark, stage and teacher, over finished and partial runs, duplicates included';
COMMENT ON COLUMN success_by_model.benchmark IS 'Benchmark';
COMMENT ON COLUMN success_by_model.stage IS 'Stage that produced the episodes';
COMMENT ON COLUMN success_by_model.provider IS 'Teacher provider';
COMMENT ON COLUMN success_by_model.model IS 'Teacher model';
COMMENT ON COLUMN success_by_model.n_runs IS 'Runs';
COMMENT ON COLUMN success_by_model.n_episodes IS 'Episodes';
COMMENT ON COLUMN success_by_model.n_success IS 'Successful episodes';
COMMENT ON COLUMN success_by_model.success_rate IS 'n_success / n_episodes, 4 decimals';

CREATE VIEW cost_by_model AS
WITH per_run AS (
    SELECT run_id, count(*) AS episodes, count(*) FILTER (success) AS solved, sum(cost) AS cost,
        sum(tokens_in + tokens_out) AS tokens
    FROM episodes GROUP BY run_id
)
SELECT benchmark, stage, provider, model,
    count(*) AS n_runs,
    coalesce(sum(episodes), 0)::BIGINT AS n_episodes,
    coalesce(sum(solved), 0)::BIGINT AS n_success,
    round(coalesce(sum(cost), 0), 4) AS cost,
    coalesce(sum(tokens), 0)::BIGINT AS tokens,
    round(sum(cost_usd), 6) AS cost_usd,
    round(sum(cost) / nullif(sum(solved), 0), 4) AS cost_per_success,
    round(sum(cost_usd) / nullif(sum(solved), 0), 6) AS cost_usd_per_success
FROM runs LEFT JOIN per_run USING (run_id)
GROUP BY ALL ORDER BY ALL;
COMMENT ON VIEW cost_by_model IS 'What episodes cost by benchmark, stage and teacher, failed runs included';
COMMENT ON COLUMN cost_by_model.benchmark IS 'Benchmark';
COMMENT ON COLUMN cost_by_model.stage IS 'Stage';
COMMENT ON COLUMN cost_by_model.provider IS 'Teacher provider';
COMMENT ON COLUMN cost_by_model.model IS 'Teacher model';
COMMENT ON COLUMN cost_by_model.n_runs IS 'Runs';
COMMENT ON COLUMN cost_by_model.n_episodes IS 'Episodes on disk';
COMMENT ON COLUMN cost_by_model.n_success IS 'Successful ones';
COMMENT ON COLUMN cost_by_model.cost IS 'Cost units of all episodes';
COMMENT ON COLUMN cost_by_model.tokens IS 'Tokens in and out';
COMMENT ON COLUMN cost_by_model.cost_usd IS 'Measured dollars of the runs';
COMMENT ON COLUMN cost_by_model.cost_per_success IS 'Cost units per solved episode; NULL where none was solved';
COMMENT ON COLUMN cost_by_model.cost_usd_per_success IS 'Dollars per solved episode; NULL where none was solved';

CREATE VIEW run_lineage AS
WITH RECURSIVE up AS (
    SELECT run_id, upstream_run_id AS related_run_id, role, 1 AS depth, [run_id, upstream_run_id] AS path FROM lineage
    UNION ALL
    SELECT up.run_id, lineage.upstream_run_id, lineage.role, up.depth + 1, list_append(up.path, lineage.upstream_run_id)
    FROM up JOIN lineage ON lineage.run_id = up.related_run_id
    WHERE NOT list_contains(up.path, lineage.upstream_run_id)
)
SELECT run_id, 'up' AS direction, related_run_id, min(depth) AS depth, list_sort(list(DISTINCT role)) AS roles
FROM up GROUP BY ALL
UNION ALL
SELECT related_run_id, 'down', run_id, min(depth), list_sort(list(DISTINCT role)) FROM up GROUP BY ALL;
COMMENT ON VIEW run_lineage IS 'Every ancestor (up) and descendant (down) of every run, at any distance';
COMMENT ON COLUMN run_lineage.run_id IS 'The run asked about';
COMMENT ON COLUMN run_lineage.direction IS 'up: related_run_id was read on the way to run_id; down: the other way round';
COMMENT ON COLUMN run_lineage.related_run_id IS 'The ancestor or descendant';
COMMENT ON COLUMN run_lineage.depth IS 'Fewest steps between them; 1 is direct';
COMMENT ON COLUMN run_lineage.roles IS 'Roles in which the upstream end of the path was read';

CREATE VIEW training_sets AS
WITH RECURSIVE sources AS (
    SELECT runs.run_id AS training_run_id, runs.stage AS training_stage, lineage.role, lineage.upstream_run_id AS data_run_id,
        1 AS depth, [runs.run_id, lineage.upstream_run_id] AS path
    FROM runs JOIN lineage USING (run_id) WHERE starts_with(runs.stage, 'train')
    UNION ALL
    SELECT training_run_id, training_stage, lineage.role, lineage.upstream_run_id, depth + 1,
        list_append(path, lineage.upstream_run_id)
    FROM sources JOIN lineage ON lineage.run_id = sources.data_run_id
    WHERE NOT list_contains(path, lineage.upstream_run_id)
)
SELECT training_run_id, training_stage, data_run_id, runs.stage AS data_stage, min(depth) AS depth,
    runs.benchmark, runs.provider, runs.model, runs.seed, runs.n_episodes, runs.success_rate, runs.digest AS data_digest
FROM sources JOIN runs ON runs.run_id = sources.data_run_id
WHERE runs.n_episodes > 0
GROUP BY ALL ORDER BY training_run_id, depth, data_run_id;
COMMENT ON VIEW training_sets IS 'Every run with episodes that a training run learnt from, directly or further up';
COMMENT ON COLUMN training_sets.training_run_id IS 'Training run: the checkpoint';
COMMENT ON COLUMN training_sets.training_stage IS 'Its stage';
COMMENT ON COLUMN training_sets.data_run_id IS 'Run whose episodes went into it';
COMMENT ON COLUMN training_sets.data_stage IS 'Stage that produced the episodes';
COMMENT ON COLUMN training_sets.depth IS 'Fewest lineage steps between them; 1 is a direct input';
COMMENT ON COLUMN training_sets.benchmark IS 'Benchmark of the data';
COMMENT ON COLUMN training_sets.provider IS 'Teacher provider of the data';
COMMENT ON COLUMN training_sets.model IS 'Teacher model of the data';
COMMENT ON COLUMN training_sets.seed IS 'Seed of the data';
COMMENT ON COLUMN training_sets.n_episodes IS 'Episodes of the data run';
COMMENT ON COLUMN training_sets.success_rate IS 'Their success rate';
COMMENT ON COLUMN training_sets.data_digest IS 'The data run''s digest now';
