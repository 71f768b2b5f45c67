"""Benchmarks: seconds of a training step and bytes kept for backward, method by method.

Needs torch, transformers and peft alone: `python -m losia_cli.bench` runs on a bare GPU machine.
"""
