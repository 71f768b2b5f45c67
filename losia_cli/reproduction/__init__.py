"""The paper's tables: their numbers as printed."""
