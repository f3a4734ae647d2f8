"""What the machine brings: child processes under a supervisor, GPUs, ffmpeg, room."""
