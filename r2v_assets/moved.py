"""``python -m r2v_assets.moved``: tell Dagster where runs are now, after the checkout was moved or copied.

``make setup`` does it in the new place. Each partition's newest materialisation is reported once more, with the same
data version, so that links, paths and checks on the assets' pages are about the files that are there.
"""

from __future__ import annotations

import dagster as dg
from dotenv import load_dotenv

from r2v_assets.inputs import materialised_run
from r2v_assets.instance import open_instance
from r2v_assets.project import root
from r2v_assets.registry_agreement import newest
from r2v_assets.runless import report_run
from r2v_core.console import say
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.table import BY_ASSET


def tell(instance: dg.DagsterInstance) -> int:
    """Report what lies elsewhere than Dagster has recorded; how many materialisations that were."""
    told = 0
    for asset in BY_ASSET:
        for known in list(newest(instance, asset)):
            directory = materialised_run(instance, asset, known.partition)
            if directory is not None:
                told += report_run(instance, asset, known.partition, UpstreamRun(directory, read_manifest(directory)))
    return told


def main() -> None:
    """Tell the instance that .env names."""
    load_dotenv(root() / ".env", override=True)
    with open_instance() as instance:
        say(f"Dagster knows the new place of {tell(instance)} runs")


if __name__ == "__main__":
    main()
