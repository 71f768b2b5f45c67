"""Quiet libraries and one thread: what tests of tiny models need."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARN")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")
