"""Numbers on fewer questions, by authors' own rule, and of trainings that differ in one setting.

Made again from answers.jsonl, questions.json and run.json by short rules of their own; nothing of
`reports` is used but to make the site.
"""

import json
from collections import defaultdict
from itertools import combinations

import pytest

from benchmarks.synthetic_experiment import make_questions, write_experiment
from model.config import TrainConfig, deciding_settings
from storage.manifest import file_digest
from tests.reports.conftest import render_site
from tests.reports.site.test_every_number import numbers, share, tables_of, wilson

STEPS = (10, 20, 30)
IDS = [question["id"] for question in make_questions(60)]
ERRATA = {IDS[index]: "another choice is right" for index in (3, 17, 42)} | {"gone": "no choice"}
# How a model of letters may put a choice; `{}` is a letter, and the last are no choice at all.
WORDINGS = ("{}", "{}. {text}", "The answer is {}.", "({})", "\n{}\n", "{text}", "A loud {text}")
NO_CHOICE = ("", "None", "E", "none of them")


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def rewrite(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_version(layout, name: str) -> None:
    """Ask six of the questions otherwise, in another order."""
    path = layout.benchmark(name) / "questions.json"
    questions = json.loads(path.read_text())
    questions[0]["question"] += " Listen well."
    questions[1]["choices"] = questions[1]["choices"][::-1]
    questions[2]["choices"] = [*questions[2]["choices"][:-1], "something else"]
    questions[2]["answer"] = questions[2]["choices"][0]
    other = [choice for choice in questions[4]["choices"] if choice != questions[4]["answer"]]
    questions[4]["answer"] = other[0]
    questions[5]["audio_id"] = "./test-mini-audios/another.wav"
    questions[6]["id"] = "new"
    path.write_text(json.dumps(questions[::-1]))
    for run in layout.evaluations.glob(f"*/{name}/*/run.json"):
        rewrite(run, questions_sha256=file_digest(path))
        answers = {line["id"]: line for line in lines_of(run.with_name("answers.jsonl"))}
        verdicts = {line["id"]: line for line in lines_of(run.with_name("verdicts.jsonl"))}
        answers["new"], verdicts["new"] = answers.pop(IDS[6]), verdicts.pop(IDS[6])
        answers["new"]["id"] = verdicts["new"]["id"] = "new"
        for question in questions:
            line = verdicts[question["id"]]
            line["official"] = answers[question["id"]]["answer"] == question["answer"]
            line["strict"] = line["official"] and line["choice_index"] is not None
        write_lines(run.with_name("answers.jsonl"), list(answers.values()))
        write_lines(run.with_name("verdicts.jsonl"), list(verdicts.values()))
        score = json.loads(run.with_name("score.json").read_text())
        for scorer, counts in score["scorers"].items():
            right = sum(line[scorer] for line in verdicts.values())
            counts["overall"]["num_correct"] = right
        run.with_name("score.json").write_text(json.dumps(score))


def answer_in_letters(layout, name: str) -> None:
    questions = json.loads((layout.benchmark(name) / "questions.json").read_text())
    for path in layout.evaluations.glob(f"*/{name}/*/answers.jsonl"):
        lines = lines_of(path)
        for index, (line, question) in enumerate(zip(lines, questions, strict=True)):
            wordings = (*WORDINGS, *NO_CHOICE)
            wording = wordings[(index * index + len(path.parts[-4])) % len(wordings)]
            letter = "ABCDEFGH"[question["choices"].index(line["answer"])]
            line["completion"] = wording.format(letter, text=line["answer"])
        write_lines(path, lines)


def in_letters(completion: str, question: dict) -> bool | None:
    """The first character, else the last but one, is the letter; nothing is wrong; else unread."""
    text = "".join(completion.split("\n")).strip()
    if not text or text == "None":
        return False
    letters = [mark for mark in (text[:1], text[-2:-1]) if mark in set("ABCD")]
    if not letters:
        return None
    place = ord(letters[0]) - ord("A")
    return question["choices"][place : place + 1] == [question["answer"]]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("further")
    layout, profile = write_experiment(
        folder,
        benchmarks=("old", "new", "letters"),
        trainings=("grpo", "sft"),
        settings={"sft": {"prompt": "plain"}},
        with_fetch=False,
        with_curves=False,
    )
    known = {
        "old": {"family": "pair", "errata": ERRATA},
        "new": {"family": "pair"},
        "letters": {"rule": "mmsu"},
    }
    for name, described in known.items():
        (folder / f"{name}.yaml").write_text(json.dumps({"name": name, **described}))
    change_version(layout, "new")
    answer_in_letters(layout, "letters")
    profile["evaluate"]["benchmarks"] = [
        {"name": name, "file": str(folder / f"{name}.yaml")} for name in known
    ]
    render_site(layout, profile)
    return layout


def questions_of(experiment, name: str) -> dict[str, dict]:
    rows = json.loads((experiment.benchmark(name) / "questions.json").read_text())
    return {row["id"]: row for row in rows}


def second_numbers(experiment, name: str) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
    """Heads of the table, and its cells by model and prompt."""
    pages = [experiment.site / "index.html", *experiment.site.glob("benchmark-*.html")]
    (rows,) = [
        table
        for page in pages
        for label, table in tables_of(page)
        if label == f"Second numbers of {name}"
    ]
    assert rows[0][:2] == ["Model", "Prompt"]
    found = {(row[0], row[1]): row[2:] for row in rows[1:]}
    assert len(found) == len(rows) - 1 == 2 * len(STEPS) + 2  # a start a prompt
    return rows[0][2:], found


def counted(marks: list[bool]) -> list[str]:
    return [f"{share(marks):.2f}", str(sum(marks)), str(len(marks))]


def exported(experiment, name: str, asked: tuple[str, str], head: str) -> list[str]:
    """The same of leaderboard.json."""
    rows = json.loads((experiment.site / "leaderboard.json").read_text())
    (row,) = [
        row
        for row in rows
        if (row["benchmark"], row["model"], row["prompt"], row["scorer"])
        == (name, *asked, "official")
    ]
    found = row["further"][head]
    return [f"{found['percent']:.2f}", str(found["num_correct"]), str(found["num_questions"])]


def marks_on(experiment, name: str, asked: tuple[str, str], rule) -> list:
    model, prompt = asked
    questions = questions_of(experiment, name)
    lines = lines_of(experiment.evaluations / model / name / prompt / "answers.jsonl")
    return [rule(line, questions[line["id"]]) for line in lines if line["id"] in questions]


def test_every_number_on_fewer_questions(experiment):
    old, new = (questions_of(experiment, name) for name in ("old", "new"))
    keys = ("question", "choices", "answer", "audio_id")
    shared = {
        name for name in old.keys() & new.keys() if all(old[name][k] == new[name][k] for k in keys)
    }
    assert len(shared) == 60 - 6
    kept = {
        "shared with new": shared,
        "shared with old": shared,
        "without listed errata": old.keys() - ERRATA.keys(),
    }
    assert len(kept["without listed errata"]) == 57
    heads = {"old": ["shared with new", "without listed errata"], "new": ["shared with old"]}
    for name, expected in heads.items():
        found_heads, cells = second_numbers(experiment, name)
        assert found_heads == expected
        for asked, texts in cells.items():
            for head, text in zip(found_heads, texts, strict=True):

                def rule(line, question, ids=kept[head]):
                    return line["answer"] == question["answer"] if line["id"] in ids else None

                marks = marks_on(experiment, name, asked, rule)
                expected_cell = counted([mark for mark in marks if mark is not None])
                assert numbers(text) == expected_cell == exported(experiment, name, asked, head)


def test_every_number_by_the_authors_own_rule(experiment):
    heads, cells = second_numbers(experiment, "letters")
    assert heads == ["by MMSU's own rule"]
    for asked, (text,) in cells.items():
        marks = marks_on(
            experiment, "letters", asked, lambda line, q: in_letters(line["completion"], q)
        )
        read = [mark for mark in marks if mark is not None]
        assert 0 < sum(read) < len(read) < 60  # every verdict occurs
        assert numbers(text) == counted(read) == exported(experiment, "letters", asked, heads[0])


def flat(value, name: str = "") -> dict[str, str]:
    """Dotted names and texts of settings."""
    if not isinstance(value, dict):
        words = {None: "none", True: "yes", False: "no"}
        return {
            name: words[value] if value is None or value is True or value is False else f"{value}"
        }
    parts = [flat(member, f"{name}.{key}" if name else key) for key, member in value.items()]
    return {key: text for part in parts for key, text in part.items()}


def test_every_number_of_trainings_that_differ_in_one_setting(tmp_path):
    """By pairs: two trainings stand together under a setting if it is all that they differ in."""
    asked = {
        "grpo": {},
        "grpo-seed": {"seed": 43},
        "grpo-again": {"seed": 44},
        "grpo-plain": {"prompt": "plain"},
        "grpo-other": {"model": "models/other"},
        "grpo-free": {},
        "grpo-fast": {"seed": 43},
        "sft": {"seed": 43, "prompt": "plain"},
    }
    own = {"grpo-free": {"beta": 0.0}, "grpo-fast": {"beta": 0.0, "steps_per_rollout": 2}}
    layout, profile = write_experiment(
        tmp_path,
        trainings=tuple(asked),
        start_models=("tiny", "other"),
        settings=asked,
        with_fetch=False,
        with_curves=False,
    )
    for name, stated in asked.items():
        entry = {"name": name, "model": "models/tiny", "grpo": own.get(name, {}), **stated}
        method = name.partition("-")[0]
        settings = deciding_settings(TrainConfig.model_validate({**entry, "method": method}))
        rewrite(layout.training(name) / "run.json", settings=settings)
    render_site(layout, profile)
    deciding = {}
    for name in asked:
        run = json.loads((layout.training(name) / "run.json").read_text())
        deciding[name] = flat(run["settings"]) | {
            "seed": str(run["seed"]),
            "prompt": run["prompt"],
            "start model": run["start"]["digest"][:12],
        }
        # The name says all of it.
        for key in [key for key in deciding[name] if key.startswith("prompt.")]:
            del deciding[name][key]
    expected = defaultdict(set)
    for one, other in combinations(asked, 2):
        differ = {key for key, _ in deciding[one].items() ^ deciding[other].items()}
        if len(differ) == 1:
            expected[differ.pop()] |= {one, other}
    assert set(expected) == {"grpo.beta", "prompt", "seed", "start model"}
    (rows,) = [
        table
        for label, table in tables_of(layout.site / "index.html")
        if label == "Trainings that differ in one setting"
    ]
    questions = questions_of(layout, "demo-mmau")
    found, setting = defaultdict(set), ""
    for first, value, name, accuracy, interval in rows[1:]:
        setting = first or setting
        found[setting].add(name)
        assert value == deciding[name][setting]
        prompt = deciding[name]["prompt"]
        path = layout.evaluations / f"{name}-step-30" / "demo-mmau" / prompt / "answers.jsonl"
        marks = [line["answer"] == questions[line["id"]]["answer"] for line in lines_of(path)]
        assert numbers(accuracy + " " + interval) == [
            f"{percent:.1f}" for percent in (share(marks), *wilson(marks))
        ]
    assert found == expected
