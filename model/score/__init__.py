"""Scoring: completions in, verdicts and counts out; knows no torch."""
