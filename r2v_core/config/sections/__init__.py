"""The config's sections, by what they are about. Import them from :mod:`r2v_core.config.schema`."""
