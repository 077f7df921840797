"""SLURM: profiles, the login node, jobs, and a whole cluster on one machine to try them with."""
