from pathlib import Path

import pytest

from reports.config import ReportConfig
from reports.numbers.achievements import paper_row
from reports.numbers.leaderboard import larger_split
from reports.published import (
    PUBLISHED_CSV,
    contradicted_average,
    read_published,
    read_rows,
)
from reports.sheets import TrainingSheet
from storage.errors import PipelineError

HEAD = "benchmark,version,model,method,sound,music,speech,average,source,date,note\n"


def row_of(benchmark: str, model: str, method: str) -> tuple[float, ...]:
    rows = read_rows(PUBLISHED_CSV)
    found = [
        row for row in rows if (row.benchmark, row.model, row.method) == (benchmark, model, method)
    ]
    assert len(found) == 1
    return tuple(found[0].percent(name) for name in ("sound", "music", "speech", "average"))


@pytest.mark.parametrize(
    ("model", "method", "percents"),
    [
        ("Human", "human", (86.31, 78.22, 82.17, 82.23)),
        ("Gemini Pro 2.0 Flash", "direct", (56.46, 58.68, 51.65, 55.60)),
        ("Audio Flamingo 2", "direct", (61.56, 73.95, 30.93, 55.48)),
        ("GPT4o + Strong Cap.", "direct", (57.35, 49.70, 64.86, 57.30)),
        ("Llama-3-8B-Instruct + Strong Cap.", "direct", (50.75, 48.93, 55.25, 52.10)),
        ("Qwen2-Audio-7B-Instruct", "direct", (54.95, 50.98, 42.04, 49.20)),
        ("SALMONN", "direct", (41.00, 34.80, 25.50, 33.70)),
        ("Qwen2-Audio-7B-Instruct", "CoTA", (60.06, 64.30, 60.70, 61.71)),
        ("Qwen2-Audio-7B-Instruct", "Zero-Shot-CoT", (61.86, 56.29, 55.26, 57.80)),
        ("Qwen2-Audio-7B-Instruct", "GRPO 1", (69.37, 66.77, 57.36, 64.50)),
        ("Qwen2-Audio-7B-Instruct", "GRPO 2", (68.77, 64.37, 63.66, 65.60)),
        ("Qwen2-Audio-7B-Instruct", "Full SFT + prompt <1>", (60.96, 49.19, 45.35, 51.80)),
    ],
)
def test_every_row_of_the_papers_table_is_there_as_printed(model, method, percents):
    assert row_of("mmau-test-mini-original", model, method) == percents


def test_rows_of_the_test_split_and_of_the_newer_version_are_there_too():
    model = "Qwen2-Audio-7B-Instruct"
    assert row_of("mmau-test-original", model, "GRPO 2") == (69.76, 61.40, 62.70, 64.36)
    assert row_of("mmau-test-mini-v05.15.25", model, "direct") == (67.27, 56.29, 55.26, 59.60)


def test_every_row_names_version_source_and_date():
    for row in read_rows(PUBLISHED_CSV):
        assert row.version
        assert row.benchmark.endswith(row.version)
        assert row.source
        assert row.date


def test_a_printed_average_that_its_categories_contradict_is_flagged():
    rows = {(row.benchmark, row.model, row.method): row for row in read_rows(PUBLISHED_CSV)}
    base = rows["mmau-test-original", "Qwen2-Audio-7B-Instruct", "direct"]
    assert contradicted_average(base) == pytest.approx(48.35, abs=0.005)
    llama = rows["mmau-test-mini-original", "Llama-3-8B-Instruct + Strong Cap.", "direct"]
    assert contradicted_average(llama) == pytest.approx(51.64, abs=0.005)
    ours = rows["mmau-test-mini-original", "Qwen2-Audio-7B-Instruct", "GRPO 1"]
    assert contradicted_average(ours) is None


def training(method: str, variant: str, prompt: str) -> TrainingSheet:
    return TrainingSheet(
        name="t",
        method=method,
        variant=variant,
        prompt=prompt,
        seed=42,
        start_model="tiny",
        evaluated=True,
    )


@pytest.mark.parametrize(
    ("asked", "average"),
    [
        (("grpo", "full", "answer"), 64.50),
        (("grpo", "full", "think"), 61.10),
        (("sft", "full", "plain"), 51.80),
        (("sft", "lora", "plain"), 56.40),
        (("grpo", "lora", "answer"), None),
        (("sft", "full", "answer"), None),
    ],
)
def test_the_papers_row_is_that_of_the_same_method_variant_and_prompt(asked, average):
    """LoRA SFT was set beside the full one, prompt <3> beside prompt <2>."""
    rows = read_rows(PUBLISHED_CSV)
    found = paper_row(rows, benchmark="mmau-test-mini-original", training=training(*asked))
    assert (found and found.average) == average


def test_the_papers_row_stands_on_its_own_version_only():
    rows = read_rows(PUBLISHED_CSV)
    grpo = training("grpo", "full", "answer")
    assert paper_row(rows, benchmark="mmau-test-mini-v05.15.25", training=grpo) is None


def test_the_users_rows_follow_the_published_ones(tmp_path: Path):
    file = tmp_path / "mine.csv"
    file.write_text(HEAD + "mmar,,Mine,GRPO,50,,,50.5,my notebook,2026-01,\n")
    rows = read_published(ReportConfig(published=False, rows=file))
    assert [(row.model, row.music, row.average) for row in rows] == [("Mine", None, 50.5)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mmar,,Mine,GRPO,fifty,,,50,me,2026,", ":2 column sound is 'fifty'"),
        ("mmar,,Mine,GRPO,120,,,50,me,2026,", "between 0 and 100"),
        ("mmar,,Mine,GRPO,50,,,50,,2026,", "a row without a source is not shown"),
        ("mmau-test-mini-original,v05.15.25,Mine,GRPO,50,,,50,me,2026,", "says version v05.15.25"),
    ],
)
def test_a_bad_row_is_refused_by_its_line(tmp_path: Path, line: str, message: str):
    file = tmp_path / "mine.csv"
    file.write_text(HEAD + line + "\n")
    with pytest.raises(PipelineError, match=message):
        read_rows(file)


def test_a_missing_file_or_column_is_named(tmp_path: Path):
    with pytest.raises(PipelineError, match=r"none\.csv is missing; report\.rows names a CSV file"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "short.csv").write_text("benchmark,model\n")
    with pytest.raises(PipelineError, match="lacks the columns version, method"):
        read_rows(tmp_path / "short.csv")


def test_only_mmau_test_mini_has_a_larger_split():
    assert larger_split("mmau-test-mini-original") == "mmau-test-original"
    assert larger_split("mmar") == ""


def test_averages_are_held_against_tasks_only_where_these_are_all_of_them():
    """MMAR's averages hold four mixes; against sound, music and speech 33 rows were marked."""
    rows = [row for row in read_rows(PUBLISHED_CSV) if row.benchmark == "mmar-2025-05"]
    board = [row for row in rows if row.source == "MMAR board, ddlBoJack/MMAR a50cb43"]
    assert len(board) == 36
    assert {row.num_questions for row in board} == {1000}
    assert [row.model for row in rows if row.contradicted is not None] == []
    r1_aqa = next(row for row in board if row.model == "R1-AQA (8.4B)")
    assert (r1_aqa.average, r1_aqa.percent("mix-sound-music")) == (47.6, 9.1)
    wrong = r1_aqa.model_copy(update={"tasks": {**r1_aqa.tasks, "mix-sound-speech": 60.0}})
    assert contradicted_average(wrong) == pytest.approx(49.8, abs=0.1)
    partial = wrong.model_copy(update={"tasks": {}})
    assert contradicted_average(partial) is None


def test_rows_of_mmsu_and_adqa_are_there_as_printed():
    rows = read_rows(PUBLISHED_CSV)
    (qwen,) = [row for row in rows if row.model == "Qwen2-Audio-Instruct" and "MMSU" in row.source]
    assert (qwen.average, qwen.tasks) == (53.27, {"Perception": 39.02, "Reasoning": 68.9})
    assert sum(row.benchmark == "mmsu" for row in rows) == 54
    assert sum(row.benchmark == "adqa-dev" for row in rows) == 6
