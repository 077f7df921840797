"""The science of R2V: runs on a compute node with no orchestrator in reach."""
