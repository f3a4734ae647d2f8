"""What crosses stages, typed: one reader and one writer for each file format."""
