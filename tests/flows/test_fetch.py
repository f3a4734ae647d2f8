"""How `python -m flows.fetch` ends, as a process: by errors, refusals and signals."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from tests.storage.wire import Wire, make_media, serve, wait_until

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
LARGEST_FILE_BYTES = 32 << 20  # Prefect's database takes 1 MB


@pytest.fixture(scope="module")
def api_url() -> Generator[str]:
    """One server for all, as each would take ten seconds to start its own."""
    with prefect_test_harness(server_startup_timeout=90):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Generator[Wire]:
    media = tmp_path_factory.mktemp("media")
    make_media(media)
    with (media / "huge.wav").open("wb") as file:
        file.truncate(LARGEST_FILE_BYTES + (1 << 20))
    with serve(media) as running:
        yield running


class Fetch:
    """A workspace in which one clip is to be fetched from an address."""

    def __init__(self, folder: Path, url: str, api_url: str) -> None:
        row = {
            "id": 1,
            "video_name": "abcdefghijk_000003",
            "video_id": 1,
            "question_text": "q",
            "multi_choice": ["a", "b"],
            "answer": 0,
            "question_relation": "Sound",
            "question_type": "Which",
        }
        (folder / "rows.json").write_text(json.dumps([row]))
        fetch = {
            "sources": [{"kind": "youtube", "url_template": f"{url}?v={{video_id}}"}],
            "videos_per_hour": None,
            "block_waits_s": [],
        }
        annotations = {"train": str(folder / "rows.json")}
        profile = {"experiment": "one", "annotations": annotations, "fetch": fetch, "train": []}
        self.profile = folder / "one.yaml"
        self.profile.write_text(yaml.safe_dump(profile))
        self.workspace = folder / "workspace"
        self.environment = os.environ | {"PREFECT_API_URL": api_url}

    def start(self, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows.fetch", "--profile", str(self.profile)]
        process = subprocess.Popen(
            [*command, "--workspace", str(self.workspace), *options],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        # Larger ones end in EFBIG, which counts as a full disk.
        limits = (LARGEST_FILE_BYTES, LARGEST_FILE_BYTES)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code, and what was written to standard error."""
    _, errors = process.communicate(timeout=180)
    return process.returncode, errors


def test_a_full_disk_is_one_line_and_exit_code_1(tmp_path: Path, wire: Wire, api_url: str) -> None:
    """Every error ended in SIGTERM, without a word: the run's stop event was taken for one."""
    code, errors = end(Fetch(tmp_path, f"{wire.base}/ok/huge.wav", api_url).start())
    assert code == 1
    assert errors.startswith("error: abcdefghijk_000003: cannot write (unable to write data: ")
    assert errors.endswith("then run the same command again\n")
    assert errors.count("\n") == 1


def test_a_refusal_is_exit_code_75_with_the_command_that_goes_on(
    tmp_path: Path, wire: Wire, api_url: str
) -> None:
    """It named the experiment, which is no profile, and neither workspace nor overrides."""
    fetch = Fetch(tmp_path, f"{wire.base}/429/marker.m4a", api_url)
    code, errors = end(fetch.start("--set", "fetch.workers=1", "--retry", "geo"))
    assert code == 75
    assert errors.startswith("error: the source refuses this address (http-429: ")
    typed = f"--profile {fetch.profile} --workspace {fetch.workspace} --set fetch.workers=1"
    assert errors.endswith(f"then go on with:\n  python -m flows.fetch {typed}\n")


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path: Path, wire: Wire, api_url: str) -> None:
    process = Fetch(tmp_path, f"{wire.base}/drip/marker.m4a", api_url).start()
    wait_until(lambda: wire.requests["/drip/marker.m4a"], timeout_s=120)
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, "stopped; the same command goes on where this one was\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_ends_it_within_seconds_though_a_download_stalls(
    tmp_path: Path, wire: Wire, api_url: str, number: signal.Signals
) -> None:
    """It waited 22 s for a server that said nothing."""
    path = "/stall/marker.m4a"
    wire.requests.clear()
    process = Fetch(tmp_path, f"{wire.base}{path}", api_url).start()
    wait_until(lambda: wire.requests[path], timeout_s=120)
    began_s = time.monotonic()
    os.killpg(process.pid, number)
    code, errors = end(process)
    assert time.monotonic() - began_s < 5
    assert code == 128 + number
    assert errors == "stopped; the same command goes on where this one was\n"


def test_a_limit_a_mirror_without_a_front_page_and_a_later_source_by_the_command(
    tmp_path: Path, wire: Wire, api_url: str
) -> None:
    """A mirror whose root answers 404 was refused, and a loss stayed whatever was added."""
    fetch = Fetch(tmp_path, f"{wire.base}/404/x.m4a", api_url)
    row = json.loads((tmp_path / "rows.json").read_text())[0]
    rows = [row | {"id": n, "video_name": f"video-{n:05d}_000003"} for n in range(9)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    limit = ("--set", "fetch.limit=3", "--set", "fetch.clip_length_s=2")
    code, errors = end(fetch.start(*limit))
    assert (code, errors) == (0, "")
    report = json.loads((fetch.workspace / "one" / "fetch" / "fetch_report.json").read_text())
    assert (report["requested"], report["by_state"]) == (3, {"invalid": 3})
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for row in rows:
        shutil.copy(wire.root / "marker.m4a", shelf / f"{row['video_name'][:-7]}.m4a")
    sources = yaml.safe_load(fetch.profile.read_text())["fetch"]["sources"]
    added = [*sources, {"kind": "folder", "path": str(shelf)}]
    process = fetch.start(*limit, "--set", f"fetch.sources={json.dumps(added)}")
    printed, _ = process.communicate(timeout=180)
    assert "3 losses may be served by the new source (folder)" in printed
    report = json.loads((fetch.workspace / "one" / "fetch" / "fetch_report.json").read_text())
    assert (report["by_state"], report["by_source"]) == ({"done": 3}, {"folder": 3})
    assert len(list((fetch.workspace / "clips-2s").iterdir())) == 3
