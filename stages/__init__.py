"""Kiln: from FunASR checkpoints to measured, gated, deployable graphs and engines."""
