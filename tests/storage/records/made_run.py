"""An evaluation's record as tests need it: every key has a usual value, any may be another."""

from storage.records.evaluation import Decoding, EvaluationRun, RunKey
from storage.records.model import ModelRef, TrainingRef
from storage.records.prompt import Prompt

GRPO = TrainingRef(name="grpo", seed=42, step=10)


def make_run(
    *,
    model: str = "grpo-step-10",
    benchmark: str = "demo",
    prompt: str | Prompt = "answer",
    control: str | None = None,
    path: str = "models/grpo",
    digest: str = "d" * 64,
    training: TrainingRef | None = GRPO,
    **changes: object,
) -> EvaluationRun:
    """A checkpoint of a training on a benchmark of twelve questions, unless said otherwise."""
    if isinstance(prompt, str):
        prompt = Prompt(name=prompt, text="{question} {choices}")
    usual = EvaluationRun(
        key=RunKey(model=model, benchmark=benchmark, prompt=prompt.name, control=control),
        model=ModelRef(key=model, path=path, digest=digest, training=training),
        role="checkpoint" if training else "start",
        method="grpo" if training else None,
        variant="full" if training else None,
        benchmark_name=benchmark,
        benchmark_digest="b" * 64,
        questions_sha256="0" * 64,
        num_questions=12,
        prompt=prompt,
        decoding=Decoding(max_new_tokens=6, batch_size=5, precision="fp32"),
        versions={},
    )
    return EvaluationRun.model_validate(usual.model_dump() | changes)
