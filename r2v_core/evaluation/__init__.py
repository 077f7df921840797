"""From episodes to numbers: pure functions on tables, no file and no model in sight."""
