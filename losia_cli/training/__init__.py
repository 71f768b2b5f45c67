"""A training run: checks before it, guards and checkpoints during it, its record after it."""
