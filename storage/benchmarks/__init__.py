"""Benchmarks: their published versions (one YAML each), rows, questions and clips."""
