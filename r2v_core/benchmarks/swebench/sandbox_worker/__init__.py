"""What runs inside the box of a SWE-bench workspace. Standard library only; the pipeline sends these modules as text.

One request goes in by standard input, one sealed line of JSON comes out (:mod:`.main`).
"""
