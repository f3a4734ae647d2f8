"""One stage a file: Prefect tasks, retries, progress, artifacts."""
