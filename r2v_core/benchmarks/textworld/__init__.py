"""Text adventures that are generated: the package ``textworld``."""
