"""A fetch in a process of its own, for tests that kill it: WORKSPACE URL_TEMPLATE NUM_CLIPS."""

import sys
from pathlib import Path

from storage.config import FetchConfig, YoutubeSource
from storage.fetch.run import FetchRun
from storage.layout import Layout
from storage.records.clip import Clip


def clips_of(num_clips: int) -> list[Clip]:
    """Each of a video of its own."""
    videos = [f"-video_{number:04d}" for number in range(num_clips)]
    return [Clip(f"{video_id}_000003", video_id, 3) for video_id in videos]


def main() -> None:
    """Fetch what is due."""
    workspace, url_template, num_clips = sys.argv[1:]
    config = FetchConfig(
        sources=(YoutubeSource(url_template=url_template),),
        videos_per_hour=None,
        clip_length_s=1.0,
        workers=2,
    )
    with FetchRun(config, Layout(Path(workspace), "test"), resume_command="x") as run:
        for batch in run.plan(clips_of(int(num_clips))).batches:
            run.fetch_batch(batch)


if __name__ == "__main__":
    main()
