"""Settings say at their field whether they decide what their stage makes."""

from typing import Annotated

import pytest
from pydantic import ValidationError

from model.config import EvaluateConfig, LoraConfig, TrainConfig, deciding_settings
from storage.config import Config, FetchConfig, Idle, YoutubeSource, deciding
from storage.errors import PipelineError


class Inner(Config):
    rate: float = 1.0
    told_every_s: Annotated[float, Idle] = 2.0


class Outer(Config):
    seed: int = 1
    workers: Annotated[int, Idle] = 2
    inner: Inner | None = Inner()


class Listed(Config):
    inners: tuple[Inner, ...] = (Inner(), Inner(rate=2.0))


def test_a_marked_field_decides_nothing_at_any_depth() -> None:
    assert deciding(Outer()) == {"seed": 1, "inner": {"rate": 1.0}}
    assert deciding(Outer(inner=None)) == {"seed": 1, "inner": None}
    assert deciding(Listed()) == {"inners": [{"rate": 1.0}, {"rate": 2.0}]}


def test_how_a_training_runs_does_not_decide_its_weights_and_what_it_learns_does() -> None:
    before = deciding_settings(TrainConfig())
    idle = {
        "name": "other",
        "model": "copy/of/it",
        "progress_every_s": 9,
        "completions_every": 7,
        "report_to": ("tensorboard",),
        "feature_cache": "/cache",
        "max_bad_share": 0.5,
        "dataloader_workers": 0,
        "threads": 1,
        "num_gpus": 8,
        "num_hosts": 2,
        "rendezvous": "here:1",
        "checkpoints": {"full": 5},
        "evaluate": False,
    }
    assert deciding_settings(TrainConfig.model_validate(idle)) == before
    for change in (
        {"seed": 7},
        {"prompt": "think"},
        {"grpo": {"beta": 0.1}},
        {"lora": LoraConfig()},
        {"example_repeats": "mine.often"},
    ):
        assert deciding_settings(TrainConfig.model_validate(change)) != before, change


def test_what_ends_a_training_early_decides_its_outcome() -> None:
    settings = {"stop": {"patience": 2}, "validation_questions": 20}
    before = deciding_settings(TrainConfig.model_validate(settings))
    assert before["stop"] == {"patience": 2}
    for change in ({"stop": {"patience": 3}}, {"save_steps": 50}, {"validation_questions": 30}):
        assert deciding_settings(TrainConfig.model_validate(settings | change)) != before, change
    with pytest.raises(ValueError, match=r"set validation_questions, e\.g\. to 200"):
        TrainConfig.model_validate({"stop": {"patience": 2}})


def test_the_other_methods_settings_are_unused() -> None:
    grpo = TrainConfig(method="grpo")
    assert deciding_settings(grpo) == deciding_settings(
        TrainConfig.model_validate({"method": "grpo", "sft": {"learning_rate": 3e-5}})
    )


def test_the_speed_of_a_fetch_and_of_an_evaluation_decide_nothing() -> None:
    assert deciding(FetchConfig(workers=1, videos_per_hour=None)) == deciding(FetchConfig())
    assert deciding(FetchConfig(clip_length_s=2)) != deciding(FetchConfig())
    assert set(deciding(EvaluateConfig())) == {"scorers", "max_new_tokens", "precision"}


@pytest.mark.parametrize(
    "options",
    [
        {"password": "hush"},
        {"proxy": "http://me:hush@proxy:3128"},
        {"http_headers": {"Cookie": "hush"}},
        {"extractor_args": {"youtube": {"po_token": ["web.gvs+hush"]}}},
    ],
)
def test_a_secret_is_refused_in_the_settings_and_not_repeated(options) -> None:
    """Proxy passwords and tokens stood in report.json and in Prefect's database."""
    with pytest.raises(ValidationError) as refused:
        YoutubeSource(ytdlp=options)
    (error,) = refused.value.errors()
    assert "env:VARIABLE" in error["msg"]
    assert "hush" not in error["msg"]


def test_a_secret_s_place_is_what_the_settings_hold(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PROXY", "http://me:hush@proxy:3128")
    (tmp_path / "token").write_text("web.gvs+hush\n")
    named = {
        "proxy": "env:PROXY",
        "extractor_args": {"youtube": {"po_token": [f"file:{tmp_path / 'token'}"]}},
    }
    source = YoutubeSource(ytdlp=named)
    assert "hush" not in source.model_dump_json()
    assert source.revealed_ytdlp == {
        "proxy": "http://me:hush@proxy:3128",
        "extractor_args": {"youtube": {"po_token": ["web.gvs+hush"]}},
    }
    with pytest.raises(PipelineError, match="env:NOBODY names a secret, and there is none"):
        _ = YoutubeSource(ytdlp={"proxy": "env:NOBODY"}).revealed_ytdlp
