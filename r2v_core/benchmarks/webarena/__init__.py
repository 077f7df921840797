"""Whole web sites that the user hosts: the tasks of ``libwebarena``."""
