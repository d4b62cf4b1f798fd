"""A build on the machines of a Ray cluster, which share DVC's remote and nothing else."""
