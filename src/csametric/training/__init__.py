"""Train an experiment into a run folder: one loop, checkpoints, evaluation."""
