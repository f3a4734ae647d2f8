"""Rows of a data set without video ids, brought back to the clips that they are about."""

import json
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.config import FetchConfig, HuggingFaceSource
from storage.errors import PipelineError
from storage.fetch.avqa_hub import lay_out, match_rows
from storage.fetch.run import FetchRun
from storage.hub import Asked
from storage.layout import Layout
from storage.records.example import Example
from tests.storage.wire import make_media

CHOICES = ("motorboat", "Yacht consignment")


def _row(number: int, *, text: str = "What happened in the video?", answer: int = 1) -> Example:
    name = f"clip{number:07d}_000030"
    return Example(number, text, CHOICES, answer, "", "AVQA", name, number, "View", "Happening")


def _question(row: Example) -> Asked:
    text = row.question_text.replace("video", "audio").casefold()
    choices = tuple(choice.casefold() for choice in row.multi_choice)
    return Asked(text, choices, choices[row.answer])


def test_rows_that_can_be_told_apart_are_matched_in_any_order():
    rows = [_row(1, text="one?"), _row(2, text="two?"), _row(3, text="two?", answer=0)]
    questions = [_question(rows[index]) for index in (2, 0, 1)]
    assert match_rows(questions, rows) == [rows[2].clip, rows[0].clip, rows[1].clip]


def test_equal_rows_are_told_apart_by_the_order_between_certain_ones():
    rows = [_row(1), _row(2, text="certain?"), _row(3), _row(4, text="sure?"), _row(5)]
    assert match_rows([_question(row) for row in rows], rows) == [row.clip for row in rows]


def test_where_the_order_leaves_a_doubt_nothing_is_guessed():
    rows = [_row(1), _row(2), _row(3, text="certain?"), _row(4)]
    # One of the first two is missing in the data set: which one cannot be told.
    questions = [_question(rows[index]) for index in (0, 2, 3)]
    assert match_rows(questions, rows) == [None, rows[2].clip, rows[3].clip]


def test_equal_rows_of_a_shuffled_data_set_stay_unmatched():
    rows = [_row(1), _row(2, text="certain?"), _row(3), _row(4, text="sure?")]
    questions = [_question(rows[index]) for index in (3, 0, 1, 2)]
    assert match_rows(questions, rows) == [rows[3].clip, None, rows[1].clip, None]


def test_equal_questions_about_one_clip_leave_no_doubt():
    row = _row(1)
    rows = [row, replace(row, id=2)]
    assert match_rows([_question(row)], rows) == [row.clip]


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory):
    """A data set in the format of `gijs/avqa-processed`, two of its three rows known."""
    media = tmp_path_factory.mktemp("media")
    make_media(media)
    audio = {"bytes": (media / "marker.m4a").read_bytes(), "path": None}
    rows = [
        ("What happened in the video?\nChoices:\nA. motorboat\nB. Yacht consignment", "B"),
        ("Sure?\nChoices:\nA. motorboat\nB. Yacht consignment", "B"),
        ("Unheard of?\nChoices:\nA. motorboat\nB. Yacht consignment", "B"),
    ]
    table = {
        "audio": [audio] * 3,
        "question": [text for text, _ in rows],
        "answer": ["B. Yacht consignment"] * 3,
    }
    features = datasets.Features(
        audio=datasets.Audio(decode=False),
        question=datasets.Value("string"),
        answer=datasets.Value("string"),
    )
    folder = tmp_path_factory.mktemp("dataset")
    # Not by `datasets` itself, which encodes audio with torchcodec only.
    encoded = pa.Table.from_pydict(table, schema=features.arrow_schema)
    pq.write_table(encoded, folder / "train-00000-of-00001.parquet")
    return folder


def test_a_data_set_serves_the_clips_that_its_rows_are_about(dataset_folder, tmp_path):
    rows = [_row(1), _row(2, text="Sure?"), _row(3, text="Not in it?")]
    config = FetchConfig(
        sources=(HuggingFaceSource(dataset=str(dataset_folder)),),
        videos_per_hour=None,
        clip_length_s=10.0,
    )
    layout = Layout(tmp_path, "test")
    with FetchRun(config, layout, resume_command="x", rows=rows) as run:
        for batch in run.plan([row.clip for row in rows]).batches:
            run.fetch_batch(batch)
        found = [(row.state, row.source or row.reason_code) for row in run.ledger.rows()]
        laid_out = run.laid_out[0]
    assert found == [
        ("done", "huggingface"),
        ("done", "huggingface"),
        ("invalid", "not-in-folder"),
    ]
    assert laid_out == (3, 2, 2)
    folder = layout.dataset(str(dataset_folder), "train")
    unmatched = (folder / "unmatched.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in unmatched] == ["unheard of?"]


def test_a_broken_off_download_goes_on_at_the_next_row(dataset_folder, tmp_path):
    rows = [_row(1), _row(2, text="Sure?")]
    source = HuggingFaceSource(dataset=str(dataset_folder))
    folder = tmp_path / "whole"
    whole = lay_out(source, rows, folder)
    broken = tmp_path / "broken"
    broken.mkdir()
    # As a kill leaves it: one row down, the second written but not yet noted.
    first_row = (tmp_path / "whole" / "rows.jsonl").read_text().splitlines(keepends=True)[0]
    (broken / "rows.jsonl").write_text(first_row)
    shutil.copy(folder / f"{rows[0].clip.clip_id}.audio", broken / "row-000000.audio")
    (broken / "row-000001.audio.part").write_bytes(b"torn")
    assert lay_out(source, rows, broken) == whole
    for row in rows:
        name = f"{row.clip.clip_id}.audio"
        assert (broken / name).read_bytes() == (folder / name).read_bytes()
    assert not list(folder.glob("row-*"))


def test_a_torn_last_line_is_downloaded_again(dataset_folder, tmp_path):
    """A log with a torn last line gave every later clip the audio of the row before it."""
    rows = [_row(1), _row(2, text="Sure?")]
    source = HuggingFaceSource(dataset=str(dataset_folder))
    folder = tmp_path / "whole"
    whole = lay_out(source, rows, folder)
    broken = tmp_path / "broken"
    broken.mkdir()
    first_row, second_row, *_ = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (broken / "rows.jsonl").write_text(first_row + second_row[:20])
    for index, row in enumerate(rows):
        clip = folder / f"{row.clip.clip_id}.audio"
        shutil.copy(clip, broken / f"row-{index:06d}.audio")
    assert lay_out(source, rows, broken) == whole


def test_a_data_set_that_cannot_be_read_is_named(tmp_path):
    source = HuggingFaceSource(dataset=str(tmp_path / "nothing"))
    with pytest.raises(PipelineError, match="nothing"):
        lay_out(source, [_row(1)], tmp_path / "out")


def test_rows_with_r1_aqas_names_are_told_by_them_alone(tmp_path):
    """`Joysw909/AVQA` holds wavs by name and no questions: matched by text, none was found."""
    folder = tmp_path / "dataset" / "train"
    folder.mkdir(parents=True)
    make_media(tmp_path / "media")
    rows = [_row(number) for number in (1, 2, 3)]
    for name in (rows[0].clip.file_name, f"{rows[1].clip.clip_id}.wav", "unknown-vid_30.wav"):
        shutil.copy(tmp_path / "media" / "marker.wav", folder / name)
    source = HuggingFaceSource(dataset=str(tmp_path / "dataset"))
    laid_out = lay_out(source, rows, tmp_path / "out")
    assert (laid_out.rows, laid_out.clips) == (3, 2)
    for row in rows[:2]:
        audio = tmp_path / "out" / f"{row.clip.clip_id}.audio"
        assert audio.read_bytes() == (tmp_path / "media" / "marker.wav").read_bytes()


def test_a_download_goes_on_at_the_commit_it_began_at_only(dataset_folder, tmp_path):
    copied = tmp_path / "copy"
    shutil.copytree(dataset_folder, copied)
    source, out = HuggingFaceSource(dataset=str(copied)), tmp_path / "out"
    lay_out(source, [_row(1)], out)
    began = json.loads((out / "commit.json").read_text())
    (out / "laid-out.json").unlink()  # as if broken off
    shutil.copy(copied / "train-00000-of-00001.parquet", copied / "train-00001-of-00002.parquet")
    with pytest.raises(PipelineError, match=f"was begun at commit {began}.*are not mixed"):
        lay_out(source, [_row(1)], out)


class _Hub(BaseHTTPRequestHandler):
    """What the hub says of a data set of one file, and the file."""

    sha = "a" * 40
    file = "VGG10000/clip0000001_30.wav"
    content = b"RIFF of a clip"
    asked: ClassVar[list[str]] = []

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name there
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        is_file = self.path.endswith(self.file)
        known = {"id": "someone/avqa", "sha": self.sha, "siblings": [{"rfilename": self.file}]}
        body = self.content if is_file else json.dumps(known).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", self.sha)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    _Hub.asked.clear()
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_the_hubs_commit_is_kept_and_another_one_refused(tmp_path):
    (tmp_path / "commit.json").write_text(json.dumps("b" * 40))
    with pytest.raises(PipelineError, match=f"commit {'b' * 40}, and now is {'a' * 40}"):
        lay_out(HuggingFaceSource(dataset="someone/avqa"), [_row(1)], tmp_path)


@pytest.mark.usefixtures("hub")
def test_files_of_the_hub_come_by_name_and_at_the_commit_that_was_found(tmp_path):
    laid_out = lay_out(HuggingFaceSource(dataset="someone/avqa"), [_row(1), _row(2)], tmp_path)
    assert (laid_out.rows, laid_out.clips) == (1, 1)
    assert (tmp_path / "clip0000001_000030.audio").read_bytes() == _Hub.content
    assert f"/datasets/someone/avqa/resolve/{'a' * 40}/{_Hub.file}" in _Hub.asked
