"""Inference: questions in, completions out."""
