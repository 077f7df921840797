"""The asset ``variant_comparison``: the result tables of all experiments side by side, a table a benchmark.

It has no partitions: a key for each benchmark would be one that can't run until an experiment of it has finished. One
run shows what there is and names what is not there yet. The registry is only read.
"""

# no `from __future__ import annotations`: Dagster reads the annotations of config and resources as they are

from pathlib import Path

import dagster as dg
from pydantic import Field

from r2v_assets.failure import raise_again, stage_failure
from r2v_assets.ownership import owners
from r2v_assets.project import experiments, root
from r2v_assets.registry import RegistryResource
from r2v_assets.run_config import COMPARISON, refuse_unused_config
from r2v_core.errors import R2VError

GROUP = "comparison"
FOLDER = Path("results") / "comparison"


class ComparisonConfig(dg.Config):
    """What is set side by side."""

    experiments: list[str] = Field([], description="experiments or benchmarks; empty: every listed one")
    seeds: list[int] = Field([], description="partition seeds that count; empty: all in the tables")


@dg.asset(
    name=COMPARISON,
    group_name=GROUP,
    kinds={"pandas", "csv"},
    deps=[dg.AssetDep("result_tables", partition_mapping=dg.AllPartitionMapping())],
    description="Methods × experiments of each benchmark, with intervals, from the registry.\n\n"
    "By hand: `r2v compare --help`",
    code_version="1",
    owners=owners(),
)
def variant_comparison(
    context: dg.AssetExecutionContext, config: ComparisonConfig, registry: RegistryResource
) -> dg.MaterializeResult:
    """One comparison a benchmark, written to ``results/comparison/<benchmark>/`` and shown on the asset's page."""
    from r2v_core.digest import digest_of  # tables come with pandas: not while Dagster loads definitions
    from r2v_core.stages.compare import Form, compare_experiments, resolve

    try:
        refuse_unused_config(context.run)
        opened = registry.open()
        chosen = resolve(opened, config.experiments or experiments())
        metadata: dict[str, dg.MetadataValue] = {}
        shown, missing = {}, []
        for benchmark in dict.fromkeys(name.partition(":")[0] for name in chosen):
            found = compare_experiments(
                opened, [name for name in chosen if name.partition(":")[0] == benchmark], seeds=config.seeds
            )
            missing += found.missing
            if not found.columns:
                continue
            folder = root() / FOLDER / benchmark
            found.write(folder)
            shown[benchmark] = found.text(Form.csv)
            metadata[f"table/{benchmark}"] = dg.MetadataValue.md(found.text(Form.markdown))
            metadata[f"files/{benchmark}"] = dg.MetadataValue.path(str(folder))
            metadata[f"sources/{benchmark}"] = dg.MetadataValue.json(
                {experiment: manifest.run_id for experiment, manifest in found.sources.items()}
            )
    except R2VError as error:
        raise_again(stage_failure(error), context.retry_number)
    for line in missing:
        context.log.info(f"missing: {line}")
    if missing:
        metadata["missing"] = dg.MetadataValue.md("\n".join(f"- {line}" for line in missing))
    return dg.MaterializeResult(data_version=dg.DataVersion(digest_of(shown)), metadata=metadata)
