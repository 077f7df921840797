"""The orchestration: the pipeline's stages as Dagster assets. No science here; that is r2v_core."""
