"""Data sets: what they must look like, and checking that they do."""
