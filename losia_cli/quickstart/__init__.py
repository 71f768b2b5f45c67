"""The quickstart: a real small model, a skill it lacks, LoSiA-Pro, and lm-eval before and after."""
