"""Sources of training rows: each reads its own shape."""
