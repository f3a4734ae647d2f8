"""Counts, statistics, tables, charts and pages."""
