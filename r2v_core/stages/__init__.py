"""One module a stage of the pipeline, and the runner that they share."""

import gc
import sys

from r2v_core.runs.stopping import leave_quietly

if sys.argv[:1] == ["-m"]:  # a stage is being started by `python -m`, and its libraries take seconds to load
    leave_quietly()
    gc.set_threshold(100_000, 20, 20)  # they make a million objects that stay: looking for garbage took a fifth of that
