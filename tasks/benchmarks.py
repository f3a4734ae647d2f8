"""The benchmarks of a profile made ready: questions checked, clips there and decoded once."""

from model.config import EvaluateConfig
from storage.benchmarks.prepare import Benchmark, prepare, prepare_validation
from storage.jsonl import read_jsonl
from storage.layout import Layout
from storage.records.question import VALIDATION
from tasks.running.console import say

TOLD_EVERY = 1000  # clips


def prepare_benchmarks(config: EvaluateConfig, layout: Layout) -> list[Benchmark]:
    """Make every benchmark of the profile ready, and the held-out examples where there are some.

    Raises:
        PipelineError: If a benchmark cannot be used; says why and what to do.
    """
    benchmarks = [
        prepare(entry, layout.benchmark(entry.name), _tell) for entry in config.benchmarks
    ]
    examples = read_jsonl(layout.validation_jsonl) if layout.validation_jsonl.exists() else []
    if examples:
        benchmarks.append(prepare_validation(examples, layout.benchmark(VALIDATION), _tell))
    return benchmarks


def _tell(what: str, num_done: int, total: int) -> None:
    if num_done % TOLD_EVERY == 0:
        say(f"  {what}: {num_done}/{total}")
