"""The static site: pages, figures, exports."""
