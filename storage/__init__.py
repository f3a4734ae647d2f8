"""Everything on disk or on the wire; knows nothing of Prefect, torch or HTML."""
