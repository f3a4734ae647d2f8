import os

import pytest

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.read import audio_roots, read_report
from reports.site.audio import audio_kind, publish_audio
from reports.site.links import clip_address
from storage.audio import find_clip
from storage.records.question import Question

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(24)


def asking(clip: str) -> Question:
    return Question("1", (clip,), "What is heard?", ("a dog", "a cat"), "a dog", "sound")


@pytest.fixture
def root(tmp_path):
    """A benchmark's audio folder with good and bad neighbours."""
    folder = tmp_path / "root"
    (folder / "test-mini-audios").mkdir(parents=True)
    (folder / "test-mini-audios" / "a.wav").write_bytes(WAV)
    (tmp_path / "secret.wav").write_bytes(WAV)
    (folder / "evil.wav").symlink_to(tmp_path / "secret.wav")
    (folder / "passwd.wav").write_text("root:x:0:0")
    (folder / "page.html").write_text("<script>")
    os.mkfifo(folder / "fifo.wav")
    (folder / "folder.wav").mkdir()
    return folder


@pytest.mark.parametrize(
    "audio_id",
    ["./test-mini-audios/a.wav", "test-mini-audios/../test-mini-audios/a.wav"],
)
def test_a_clip_inside_its_folder_is_published_under_our_name(root, tmp_path, audio_id):
    site = tmp_path / "site"
    addresses = publish_audio([asking(audio_id)], root, site, folder="demo/../x")
    assert addresses == ["audio/demo-..-x/00000.wav"]
    assert (site / addresses[0]).read_bytes() == WAV


@pytest.mark.parametrize(
    "audio_id",
    [
        "../secret.wav",
        "{outside}/secret.wav",
        "/etc/passwd",
        "evil.wav",
        "passwd.wav",
        "page.html",
        "fifo.wav",
        "folder.wav",
        "test-mini-audios",
        "javascript:alert(1)",
        "http://x/a.wav",
        "file:///etc/passwd",
        "..\\secret.wav",
        "%2e%2e/secret.wav",
        "a\x00.wav",
        "",
        "x" * 5000,
    ],
)
def test_anything_else_is_not_published(root, tmp_path, audio_id):
    audio_id = audio_id.replace("{outside}", str(tmp_path))
    site = tmp_path / "site"
    assert publish_audio([asking(audio_id)], root, site, folder="demo") == [None]
    assert not [path for path in site.rglob("*") if path.is_file()]


def test_a_clip_is_found_in_a_folder_without_the_sub_folder_of_its_id(root):
    found = find_clip(root / "test-mini-audios", "./test-mini-audios/a.wav")
    assert found == (root / "test-mini-audios" / "a.wav").resolve()


def test_audio_is_where_the_profile_says_else_in_the_benchmarks_own_folder(tmp_path):
    layout, profile = write_experiment(
        tmp_path,
        num_questions=6,
        steps=(10,),
        benchmarks=("demo-mmau", "other", "validation"),
        with_audio=True,
    )
    (tmp_path / "elsewhere").mkdir()
    profile["evaluate"]["benchmarks"] = [
        {"name": "demo-mmau", "audio": str(tmp_path / "elsewhere")},
        {"name": "other", "audio": "someone/dataset"},
    ]
    report = read_report(layout, ReportConfig(), settings=profile)
    assert audio_roots(layout, profile, report.benchmarks) == {
        "demo-mmau": tmp_path / "elsewhere",
        "other": layout.benchmark("other") / "audio",
        "validation": layout.clips,
    }


@pytest.mark.parametrize(
    ("folder", "clip", "address"),
    [
        ("clips", "-HG3Omg_89c_000030", "../../clips/-HG3Omg_89c_30.wav"),
        ("clips-2.5s", "-HG3Omg_89c_000000", "../../clips-2.5s/-HG3Omg_89c_0.wav"),
        ("clips", "../../../etc/passwd", ""),
        ("clips/../..", "-HG3Omg_89c_000030", ""),
        ("clips", '"><script>', ""),
    ],
)
def test_a_training_clips_address_is_made_of_an_id_alone(folder, clip, address):
    assert clip_address(folder, clip) == address


def test_a_missing_audio_folder_publishes_nothing(tmp_path):
    assert find_clip(tmp_path / "none", "a.wav") is None


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (WAV, ".wav"),
        (b"ID3\x04" + bytes(20), ".mp3"),
        (b"\xff\xfb\x90\x00" + bytes(20), ".mp3"),
        (b"OggS" + bytes(20), ".ogg"),
        (b"fLaC" + bytes(20), ".flac"),
        (b"\x00\x00\x00\x20ftypM4A " + bytes(8), ".m4a"),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_the_kind_is_read_from_the_content_not_from_the_name(tmp_path, head, kind):
    """46 clips of MMAU are MP3 streams under the name .wav."""
    (tmp_path / "clip.wav").write_bytes(head)
    assert audio_kind(tmp_path / "clip.wav") == kind
