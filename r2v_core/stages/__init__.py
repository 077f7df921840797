"""One module a stage of the pipeline, and the runner that they share."""
