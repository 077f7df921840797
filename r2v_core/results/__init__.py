"""Tables, figures and the report of one experiment.

``ResultsManager(directory)`` regenerates every table from the run bundles stored in
``<directory>/structured_results/`` alone.
"""

from r2v_core.results.manager import ResultsManager

__all__ = ["ResultsManager"]
