"""Data sets: the paper's, drawn and converted; what any must look like, and checking it."""
