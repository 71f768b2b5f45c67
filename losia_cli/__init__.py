"""LoSiA fine-tuning on one GPU, inside LLaMA-Factory's workflow (importing this loads no torch)."""

__version__ = "0.1.0"
