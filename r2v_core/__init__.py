"""The science of R2V: runs on a compute node with no orchestrator in reach."""

__version__ = "0.1.0"
"""Version of the whole distribution; pyproject.toml reads it from here."""
