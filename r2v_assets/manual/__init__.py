"""The documentation as pages: what is generated for it, how it is built, and how a terminal shows it."""
