"""Bugs of real repositories: SWE-bench's format, its grader, and a workspace of our own."""
