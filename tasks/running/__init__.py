"""Running child processes: their GPUs, torchrun, what the console shows."""
