"""From an experiment to a run folder: one loop, checkpoints, validation."""
