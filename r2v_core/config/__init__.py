"""Experiment configuration: YAML files with inheritance, overrides, and one schema that checks them."""

from r2v_core.config.load import LoadedConfig, config_snapshot, load_config, override_config, section
from r2v_core.config.schema import Config

__all__ = ["Config", "LoadedConfig", "config_snapshot", "load_config", "override_config", "section"]
