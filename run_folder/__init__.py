"""Everything that a run leaves on disk: experiment, checkpoints, lock and logs."""
