"""Scores on the paper's columns, from lm-evaluation-harness."""
