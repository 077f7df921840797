"""One module a stage of the pipeline, and the runner that they share."""

import sys

from r2v_core.runs.stopping import leave_quietly

if sys.argv[:1] == ["-m"]:  # a stage is being started by `python -m`, and its libraries take seconds to load
    leave_quietly()
