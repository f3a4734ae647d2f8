"""What fetching costs: clips a second, CPU per clip, bytes per clip, ledger, reconciliation.

`python -m benchmarks.fetch [--json] [--clips 200] [--rows 40000]`; no network. Clips come from a
loopback server in another process, once through yt-dlp's generic extractor and once through the
real YouTube extractor, which is answered offline. YouTube itself allows one video each 12 to 15 s.
"""

import argparse
import json
import multiprocessing
import resource
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from storage.config import WATCH_PAGE, FetchConfig, YoutubeSource
from storage.fetch.cut import num_samples_of
from storage.fetch.ledger import ClipRow, Ledger
from storage.fetch.run import FetchRun
from storage.host.ffmpeg import find_ffmpeg
from storage.layout import Layout
from storage.records.clip import Clip
from tests.storage import offline_youtube as offline
from tests.storage.wire import make_media, serve

VIDEO_S = 240  # a common length of a video on YouTube
OPUS = 'audio/webm; codecs="opus"'


def main() -> None:
    """Run all and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--rows", type=int, default=40_000)
    options = parser.parse_args()
    numbers: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        media = root / "media"
        make_media(media, seconds=60)
        numbers |= bytes_per_clip(media)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        server = multiprocessing.Process(target=_serve, args=(media, sender), daemon=True)
        server.start()
        base = receiver.recv()
        for name, url in (
            ("mirror", f"{base}/ok/marker.webm?v={{video_id}}"),
            ("youtube", WATCH_PAGE),
        ):
            for workers in (1, 2, 4):
                layout = Layout(root / f"{name}-{workers}", "benchmark")
                measured = fetch(layout, url, base, media, num_clips=options.clips, workers=workers)
                numbers |= {
                    f"{name}_{key}_{workers}_workers": each for key, each in measured.items()
                }
        server.terminate()
        numbers["ledger_commits_per_s"] = ledger_commits_per_s(root / "commits.sqlite")
        numbers |= reconcile(Layout(root / "many", "benchmark"), num_rows=options.rows)
    for key, value in numbers.items():
        print(f"{key:45} {value:12.2f}")
    if options.json:
        print(json.dumps({key: round(value, 3) for key, value in numbers.items()}))


def fetch(
    layout: Layout, url: str, base: str, media: Path, *, num_clips: int, workers: int
) -> dict[str, float]:
    """Fetch clips of as many videos."""
    clips = [Clip(f"{n:011d}_000030", f"{n:011d}", 30) for n in range(num_clips)]
    size = (media / "marker.webm").stat().st_size
    formats = [
        offline.audio_format(249, f"{base}/ok/marker.webm", OPUS, bit_rate=50_000, size=size)
    ]
    playable = offline.Scenario(offline.PLAYABLE, formats)
    offline.VIDEOS.update((clip.video_id, playable) for clip in clips)
    config = FetchConfig(
        sources=(YoutubeSource(url_template=url),), videos_per_hour=None, workers=workers
    )
    with FetchRun(config, layout, resume_command="x") as run:
        batches = run.plan(clips).batches
        began_s, began_cpu_s = time.perf_counter(), _cpu_s(resource.RUSAGE_SELF)
        began_ffmpeg_s = _cpu_s(resource.RUSAGE_CHILDREN)
        for batch in batches:
            run.fetch_batch(batch)
        seconds = time.perf_counter() - began_s
        ffmpeg_s = _cpu_s(resource.RUSAGE_CHILDREN) - began_ffmpeg_s
        cpu_s = _cpu_s(resource.RUSAGE_SELF) - began_cpu_s + ffmpeg_s
        assert {row.state for row in run.ledger.rows()} == {"done"}
    return {
        "clips_per_s": num_clips / seconds,
        "cpu_ms_per_clip": 1000 * cpu_s / num_clips,
        "ffmpeg_ms_per_clip": 1000 * ffmpeg_s / num_clips,
    }


def bytes_per_clip(media: Path) -> dict[str, float]:
    """What is moved for a clip of a video of four minutes, against the ways of others."""
    scale = VIDEO_S / 60 / 1e6
    whole = media / "whole.mp4"
    picture = ["-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=60"]
    sound = ["-i", str(media / "marker.wav"), "-c:a", "aac", "-b:a", "128k"]
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "600k", "-shortest"]
    command = [find_ffmpeg(), "-v", "error", "-y", *picture, *sound, *coding, str(whole)]
    subprocess.run(command, check=True)
    return {
        "mb_per_clip_smallest_audio": (media / "marker.webm").stat().st_size * scale,
        "mb_per_clip_video_360p": whole.stat().st_size * scale,
    }


def ledger_commits_per_s(path: Path, num_commits: int = 500) -> float:
    """Rows with their attempts, each a transaction flushed to the disk."""
    row = ClipRow("-HG3Omg_89c_000030", "-HG3Omg_89c", 30, 10.0, state="done")
    with Ledger(path) as ledger:
        began_s = time.perf_counter()
        for _ in range(num_commits):
            ledger.write([row], run=1)
        return num_commits / (time.perf_counter() - began_s)


def reconcile(layout: Layout, *, num_rows: int) -> dict[str, float]:
    """Plan a run over rows that are all done, their wavs (empty ones on disk) in the folder."""
    clips = [Clip(f"{n:011d}_000030", f"{n:011d}", 30) for n in range(num_rows)]
    layout.clips.mkdir(parents=True)
    for clip in clips:
        with (layout.clips / clip.file_name).open("wb") as file:
            file.truncate(44 + 2 * num_samples_of(10.0))
    rows = [
        ClipRow(clip.clip_id, clip.video_id, clip.start_s, 10.0, state="done", duration_s=10.0)
        for clip in clips
    ]
    with Ledger(layout.ledger) as ledger:
        ledger.write(rows)
    with FetchRun(FetchConfig(videos_per_hour=None), layout, resume_command="x") as run:
        began_s = time.perf_counter()
        assert run.plan(clips).num_due == 0
        return {"reconcile_s": time.perf_counter() - began_s}


def _serve(media: Path, sender: Connection) -> None:
    with serve(media) as wire:
        sender.send(wire.base)
        wire.released.wait()


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
