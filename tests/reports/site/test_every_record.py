"""What the pages print of records: clips and rows, provenance, questions, controls; read anew here.

Nothing of `reports` is used but to make the site. A table that no check knows fails.
"""

import csv
import hashlib
import json
from collections import Counter

import pytest

from benchmarks.synthetic_experiment import write_experiment
from reports.config import ReportConfig
from reports.read import read_report
from reports.sheets import Provenance
from reports.site.render import render
from tests.reports.conftest import render_site
from tests.reports.site.test_every_number import numbers, tables_of, text_of, wilson

PROVENANCE = Provenance(
    command="python -m flows.full_pipeline", commit="0123abc", versions={"torch": "2.13.0"}
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    layout, profile = write_experiment(
        tmp_path_factory.mktemp("records"), num_questions=60, with_controls=True
    )
    for name in ("kept0000000_30", "kept0000007_30", "lost0000002_30"):
        layout.clips.mkdir(exist_ok=True)
        (layout.clips / f"{name}.wav").touch()
    report = read_report(layout, ReportConfig(), settings=profile, provenance=PROVENANCE)
    render(report, layout.site, audio_roots={})
    return layout


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def data_of(path) -> dict:
    """The value that a data script hands over."""
    return json.loads(path.read_text().partition(",")[2].partition(",")[2].removesuffix(");\n"))


def column(codes: dict) -> list[str]:
    return [codes["values"][code] for code in codes["codes"]]


def test_every_number_of_the_audio_page(experiment):
    with (experiment.fetch / "clips.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    lost = lines_of(experiment.fetch / "invalid.jsonl")
    rows, dropped = lines_of(experiment.train_jsonl), lines_of(experiment.dropped_jsonl)
    usable = [clip for clip in clips if clip["state"] == "done"]
    page = experiment.site / "data.html"
    text = text_of(page)
    share = f"{100 * len(usable) / len(clips):.1f} %"
    tiles = f"Requested {len(clips)} Usable {len(usable)} {share} Not usable {len(lost)} "
    assert f"{len(usable)} of {len(clips)} clips could be used." in text
    assert tiles in text
    assert (
        f"{len(rows) + len(dropped)} rows read: {len(rows)} kept, {len(dropped)} dropped." in text
    )
    assert f"{len(usable)} of {len(clips)} training clips usable ( {len(lost)} lost )" in text_of(
        experiment.site / "index.html"
    )
    for name, count in Counter(clip["source"] for clip in usable).items():
        assert f"from {name} {count} clips" in text
    for note, words in (("silent", "\u221260 dBFS"), ("short", "the source ends inside the clip")):
        count = sum(clip[note] == "1" for clip in usable)
        assert f"{words} {count} clip" in text
    reasons = Counter((line["reason"], line["state"]) for line in lost)
    types = Counter(row["question_type"] for row in rows)
    relations = Counter(row["question_relation"] for row in rows)
    expected = {
        "Unusable clips by reason": {
            (*key, str(count), f"{100 * count / len(clips):.2f} %", "")
            for key, count in reasons.items()
        },
        "Losses by day": {
            (day, str(count))
            for day, count in Counter(line["last_try"][:10] for line in lost).items()
        },
        "Usable clips": set(),
        "Dropped rows by reason": {
            (reason, str(count))
            for reason, count in Counter(row["reason"] for row in dropped).items()
        },
        "Question type before and after": shares(types),
        "Asks about before and after": shares(relations),
    } | {
        f"Clips lost to {reason}": {
            (line["clip_id"], line["state"], line["message"])
            for line in lost
            if line["reason"] == reason
        }
        for reason, _ in reasons
    }
    found = {
        label: {tuple(text.strip() for text in row) for row in table[1:]}
        for label, table in tables_of(page)
    }
    assert found == expected
    for reason, count in Counter(line["reason"] for line in lost).items():
        assert f"{count} clip{'s' if count > 1 else ''}: {reason}" in text
    assert page.read_text().count("<audio") == 1  # of the lost ones
    shown = data_of(experiment.site / "data" / "clips.js")
    assert shown["id"] == [clip["clip_id"] for clip in usable]
    assert column(shown["source"]) == [clip["source"] for clip in usable]
    assert [text.count("s") for text in column(shown["note"])] == [
        int(clip["silent"]) + int(clip["short"]) for clip in usable
    ]
    assert [at for at, mark in enumerate(shown["there"]) if mark == "1"] == [0, 7]


def shares(counts: Counter) -> set[tuple[str, str, str]]:
    return {
        (name, str(count), f"{100 * count / counts.total():.1f} %")
        for name, count in counts.items()
    }


def test_every_number_of_the_provenance_page(experiment):
    page = experiment.site / "provenance.html"
    tables, text = dict(tables_of(page)), text_of(page)
    questions = experiment.benchmark("demo-mmau") / "questions.json"
    sha256 = hashlib.sha256(questions.read_bytes()).hexdigest()
    assert tables.pop("Benchmarks")[1:] == [["demo-mmau", "60", sha256]]
    runs = [json.loads(path.read_text()) for path in experiment.evaluations.glob("*/*/*/run.json")]
    expected = {
        (
            run["key"]["model"],
            "demo-mmau",
            run["prompt"]["name"],
            run["key"]["control"] or "\u2013",
            "do_sample False, max_new_tokens {max_new_tokens}, batch_size {batch_size}, precision "
            "{precision}".format(**run["decoding"]),
            f"{run['seconds']:.1f}",
            run["model"]["digest"][:15] + "\u2026",
        )
        for run in runs
    }
    assert {tuple(row) for row in tables.pop("Evaluations")[1:]} == expected
    assert len(expected) == len(runs) == 6
    assert not tables
    record = json.loads((experiment.training("grpo") / "run.json").read_text())
    assert f"seed of grpo {record['seed']} report schema {record['format']} " in text
    assert "command python -m flows.full_pipeline commit 0123abc" in text
    assert "version of torch 2.13.0" in text
    rest = {key: value for key, value in runs[0]["prompt"].items() if key != "name"}
    compact = json.dumps(rest, separators=(",", ":"), ensure_ascii=False)
    assert f"answer sha256 {hashlib.sha256(compact.encode()).hexdigest()} ;" in text


def test_every_mark_of_the_question_page(experiment):
    shown = data_of(next((experiment.site / "data").glob("*/questions.js")))
    asked = json.loads((experiment.benchmark("demo-mmau") / "questions.json").read_text())
    assert shown["id"] == [question["id"] for question in asked]
    assert shown["choices"] == [question["choices"] for question in asked]
    for name, key in (("task", "task"), ("sub_category", "sub-category")):
        assert column(shown[name]) == [question[key] for question in asked]
    seen = 0
    for path in experiment.evaluations.glob("*/*/*/answers.jsonl"):
        said = {line["id"]: line for line in lines_of(path)}
        model, control = path.parts[-4], path.parts[-2].partition("+")[2]
        label = f"{model} · {control}" if control else model
        (found,) = (each for each in shown["evaluations"] if each["label"] == label)
        answers = [said[question["id"]] for question in asked]
        tagged = [line["completion"].startswith("<answer>") for line in answers]
        right = [line["answer"] == q["answer"] for line, q in zip(answers, asked, strict=True)]
        both = [one and other for one, other in zip(right, tagged, strict=True)]
        assert found["marks"] == ["".join("01"[mark] for mark in each) for each in (right, both)]
        assert found["parsed"] == "".join("01"[mark] for mark in tagged)
        assert found["picks"] == "".join(
            str(q["choices"].index(line["answer"])) if is_tagged else "?"
            for q, line, is_tagged in zip(asked, answers, tagged, strict=True)
        )
        seen += 1
    assert seen == len(shown["evaluations"]) == 6


def test_what_a_trainings_page_says_of_its_controls_is_in_their_record(experiment):
    (path,) = experiment.evaluations.glob("*/*/*/controls.json")
    controls, text = json.loads(path.read_text()), text_of(experiment.site / "training-grpo.html")
    counted, order = controls["needs_audio"]["official"], controls["order"]
    right, size = counted["num_correct"], counted["num_questions"]
    ends = wilson([index < right for index in range(size)])
    said = text.partition("Of the ")[2].partition(" The same choice")[0]
    assert numbers(said) == [
        str(size),
        str(right),
        *(f"{percent:.1f}" for percent in (100 * right / size, *ends)),
    ]
    told = text.partition("there are choices: ")[2].partition(" By difficulty")[0]
    names = ("num_consistent", "num_questions", "num_right_in_all")
    assert numbers(told) == [str(order[name]) for name in names]


def test_every_count_of_what_is_left_out(tmp_path):
    """Evaluations of another profile, one that is not finished, steps still to come."""
    layout, profile = write_experiment(
        tmp_path,
        trainings=("grpo", "sft"),
        settings={"grpo": {"max_steps": 40, "save_steps": 10}},
        with_fetch=False,
    )
    profile["train"] = profile["train"][:1]
    stopped = layout.evaluations / "grpo-step-20" / "demo-mmau" / "answer"
    (stopped / "score.json").unlink()
    for path, kept in (
        (stopped / "answers.jsonl", 25),
        (next(layout.evaluations.glob("sft-step-10/*/*/answers.jsonl")), 59),
    ):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:kept]))
    render_site(layout, profile)
    page = layout.site / "index.html"
    text = text_of(page)
    assert "2 of 4 steps evaluated ; grpo-step-20: 25 of 60, left out" in text
    assert "grpo: as of step 30 of 40." in text
    counted = {
        path.parts[-4]: len(lines_of(path))
        for path in layout.evaluations.glob("sft-*/*/*/answers.jsonl")
    }
    assert sorted(counted.values()) == [59, 60, 60]
    rows = dict(tables_of(page))["Not of this profile"][1:]
    assert {row[0]: int(row[4]) for row in rows} == counted
    assert "3 evaluations" in text
