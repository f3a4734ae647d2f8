"""The step that leads is chosen on held-out examples, by a rule that can be checked by hand."""

from pathlib import Path

from model.score.choosing import StepScore, choose_step, chosen_steps
from storage.records.evaluation import Counts, Hashes, Score, Tally
from storage.records.model import TrainingRef
from tests.storage.records.made_run import make_run


def test_the_most_accurate_step_is_chosen_and_the_earliest_of_equals() -> None:
    scores = [StepScore(300, 41, 60), StepScore(100, 40, 60), StepScore(200, 41, 60)]
    assert choose_step(scores) == 200
    assert choose_step([]) is None


def test_only_held_out_scores_of_checkpoints_take_part(tmp_path: Path) -> None:
    def score(model: str, benchmark: str, *, step: int | None, num_correct: int) -> None:
        training = TrainingRef(name="grpo", seed=42, step=step) if step else None
        run = make_run(model=model, benchmark=benchmark, training=training)
        folder = tmp_path / run.key.folder
        run.write(folder / "run.json")
        Score(
            benchmark=benchmark,
            by_scorer={"official": Counts(overall=Tally(num_correct, 10), groups={})},
            num_questions=10,
            num_unparsed=0,
            hashes=Hashes(questions="", answers=""),
        ).write(folder / "score.json")

    score("base", "validation", step=None, num_correct=10)
    score("grpo-step-100", "validation", step=100, num_correct=7)
    score("grpo-step-200", "validation", step=200, num_correct=6)
    score("grpo-step-200", "mmau-test-mini-original", step=200, num_correct=10)
    assert chosen_steps(tmp_path, "official") == {"grpo": 100}
    assert chosen_steps(tmp_path, "strict") == {}
