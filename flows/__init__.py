"""Orchestration: the order of the stages, their commands and profiles."""
