"""Where ffmpeg is and how it is run: the system's, or the one in the wheel `imageio-ffmpeg`."""

import functools
import shutil
import subprocess

import imageio_ffmpeg  # pyright: ignore[reportMissingTypeStubs]  # it has none

from storage.errors import PipelineError


@functools.cache
def find_ffmpeg() -> str:
    """Path of an ffmpeg that can be run.

    Raises:
        PipelineError: If there is none.
    """
    system = shutil.which("ffmpeg")
    if system is not None:
        return system
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        msg = "no ffmpeg: install the system's, or its wheel: pip install imageio-ffmpeg"
        raise PipelineError(msg) from error


@functools.cache
def ffmpeg_version() -> str:
    """Version as ffmpeg tells it, e.g. `7.0.2-static`."""
    command = [find_ffmpeg(), "-version"]
    first_line = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True
    ).stdout
    return first_line.split()[2]
