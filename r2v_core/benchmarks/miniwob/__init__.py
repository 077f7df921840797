"""Small web pages in a real browser: the package ``miniwob``."""
