"""A profile's made world, if it has one: files made once, media served while clips are fetched."""

from collections.abc import Generator
from contextlib import contextmanager

from storage.config import WorldConfig
from storage.layout import Layout
from storage.world import make
from tasks.running.console import say


def make_world(config: WorldConfig | None, layout: Layout) -> None:
    """Make the world's files where they do not stand yet; nothing to do in the real one."""
    if config is None:
        return
    if not layout.world.exists():
        say(f"world: making {config.num_videos} videos and a benchmark in {layout.world}")
    make.make_world(config, layout.world)


@contextmanager
def served_world(config: WorldConfig | None, layout: Layout) -> Generator[None]:
    """Serve the world's media on loopback while the block runs.

    Raises:
        PipelineError: If the port is in use.
    """
    if config is None:
        yield
        return
    with make.serve(make.World(layout.world), config.port):
        yield
