"""Where other libraries are met: LLaMA-Factory inside, and the Transformers Trainer."""
