"""JSON on disk: whole or not at all, and readable whatever a model wrote."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import PipelineError
from storage.jsonl import append_line, read_appended, read_json, read_jsonl, to_line, write_jsonl

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(records=st.lists(st.dictionaries(st.text("abc", min_size=1), VALUES), max_size=5))
def test_what_was_written_is_read_back(
    records: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "records.jsonl"
    write_jsonl(path, records)
    assert read_jsonl(path) == records


def test_line_separators_of_unicode_stay_inside_their_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_jsonl(path, [{"text": "a\u2028b\x85c"}, {"text": "d"}])
    assert [record["text"] for record in read_jsonl(path)] == ["a\u2028b\x85c", "d"]


def test_a_lone_surrogate_does_not_stop_the_writing(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_jsonl(path, [{"text": "\ud800lone"}])
    assert read_jsonl(path) == [{"text": "?lone"}]


def test_nan_is_refused_because_browsers_cannot_read_it() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_line({"loss": float("nan")})


def test_a_torn_last_line_of_a_log_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_line(path, {"id": "a"})
    with path.open("a") as file:
        file.write('{"id": "b", "compl')
    assert read_appended(path) == [{"id": "a"}]
    assert read_appended(tmp_path / "missing.jsonl") == []


def test_a_broken_line_of_a_whole_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text('{"id": 1}\n[2]\n')
    with pytest.raises(PipelineError, match=r"train\.jsonl:2 is list, expected a JSON object"):
        read_jsonl(path)
    with pytest.raises(PipelineError, match=r"nowhere\.json is missing"):
        read_json(tmp_path / "nowhere.json")
