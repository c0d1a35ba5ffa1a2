"""Files of a run: experiment, checkpoints, lock and logs."""
