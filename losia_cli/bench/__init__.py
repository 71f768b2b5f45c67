"""Benchmarks: seconds of a training step and bytes kept for backward, method by method.

Those of training need torch, transformers and peft alone, so that a bare GPU machine runs them.
"""
