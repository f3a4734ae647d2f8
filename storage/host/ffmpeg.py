"""Where ffmpeg is and how it is run: the system's, or the one in the wheel `imageio-ffmpeg`."""

import functools
import shutil
import subprocess

import imageio_ffmpeg  # pyright: ignore[reportMissingTypeStubs]  # it has none

from storage.errors import PipelineError


@functools.cache
def find_ffmpeg() -> str:
    """Path of an ffmpeg that can be run; PipelineError if there is none."""
    if system := shutil.which("ffmpeg"):
        return system
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        msg = "no ffmpeg: install the system's, or its wheel: pip install imageio-ffmpeg"
        raise PipelineError(msg) from error


@functools.cache
def ffmpeg_version() -> str:
    """Version as ffmpeg tells it, e.g. `7.0.2-static`."""
    told = subprocess.check_output([find_ffmpeg(), "-version"], text=True, timeout=30)
    return told.split()[2]
