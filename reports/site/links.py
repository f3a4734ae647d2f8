"""Addresses within the site, made by us: no name out of data becomes a path as it is."""

import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain, count
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode

from reports.numbers.comparisons import Comparison, Pair
from reports.report import Report
from reports.sheets import Asked
from storage.layout import CLIPS_FOLDER
from storage.records.clip import VIDEO_NAME, parse_video_name

Key = TypeVar("Key", bound=Hashable)
ARXIV = re.compile(r"arXiv (\d{4}\.\d{5})")
# Where a published row is printed, by how its source begins; all of a page's links that lead
# elsewhere are made here.
SOURCES = {
    "R1-AQA README": "https://github.com/xiaomi-research/r1-aqa",
    "xiaomi-research/r1-aqa issue 14": "https://github.com/xiaomi-research/r1-aqa/issues/14",
    "MMAU leaderboard": "https://sakshi113.github.io/mmau_homepage/",
    "Qwen2.5-Omni README": "https://github.com/QwenLM/Qwen2.5-Omni",
    "Qwen3-Omni technical report": "https://arxiv.org/abs/2509.17765",
    "Ke-Omni-R README": "https://github.com/shuaijiang/Ke-Omni-R",
    "wenet-e2e/west pull request 117": "https://github.com/wenet-e2e/west/pull/117",
    "wenet-e2e/west": "https://github.com/wenet-e2e/west",
    "NeMo-RL": "https://github.com/NVIDIA-NeMo/RL/blob/main/docs/guides/grpo-audio.md",
    "MiMo-Audio": "https://github.com/XiaomiMiMo/MiMo-Audio",
    "Step-Audio-R1": "https://github.com/stepfun-ai/Step-Audio-R1",
}


class Links(NamedTuple):
    """The page of everything that has one."""

    trainings: Mapping[str, str]
    """By name."""
    models: Mapping[str, str]
    """By key: of a checkpoint its training's page, of any other model its own."""
    comparisons: Mapping[Pair, str]
    """Of the pairs that are compared."""

    def comparison(self, first: Asked, second: Asked) -> str:
        """The page of two, whichever is measured against the other; empty where there is none."""
        found = self.comparisons.get(Pair(first, second))
        return found or self.comparisons.get(Pair(second, first), "")


def links_of(report: Report, comparisons: Sequence[Comparison]) -> Links:
    """Choose every page's name; each is another's only if they are the same page."""
    parts = unique_slugs({training.name: training.name for training in report.trainings})
    trainings = {name: f"training-{part}.html" for name, part in parts.items()}
    models = {
        sheet.model: trainings[sheet.training] for sheet in report.evaluations if sheet.training
    }
    keys = list(dict.fromkeys(sheet.model for sheet in report.evaluations))
    others = unique_slugs({key: key for key in keys if key not in models})
    slugs = unique_slugs({key: key for key in keys})

    def part(asked: Asked) -> str:
        """The model, and its prompt where it was asked with several."""
        is_one = len(report.prompts[asked.model]) == 1
        return slugs[asked.model] if is_one else f"{slugs[asked.model]}-{asked.prompt}"

    names = {found.pair: "-".join(map(part, found.pair)) for found in comparisons}
    compared = unique_slugs(names, longest=150)
    return Links(
        trainings=trainings,
        models={key: f"model-{part}.html" for key, part in others.items()} | models,
        comparisons={pair: f"compare-{part}.html" for pair, part in compared.items()},
    )


def slug(text: str, *, longest: int = 60) -> str:
    """Text as part of a file name: lower-case letters, digits, `.` and `-`; never empty."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower())[:longest].strip(".-") or "unnamed"


def unique_slugs(texts: Mapping[Key, str], *, longest: int = 60) -> dict[Key, str]:
    """A file name's part for each text; two that would collide get a number."""
    slugs: dict[Key, str] = {}
    for key, text in texts.items():
        base = slug(text, longest=longest)
        names = chain([base], (f"{base}-{number}" for number in count(2)))
        slugs[key] = next(name for name in names if name not in slugs.values())
    return slugs


def benchmark_slugs(report: Report) -> dict[str, str]:
    """Folder of each benchmark, by key, under `data/` and `audio/`."""
    return unique_slugs({benchmark.key: benchmark.name for benchmark in report.benchmarks})


def clip_address(folder: str, clip: str) -> str:
    """Address of a training clip's wav, which lies beside the experiment's folder; empty: none."""
    is_ours = CLIPS_FOLDER.fullmatch(folder) and VIDEO_NAME.fullmatch(clip)
    return f"../../{folder}/{parse_video_name(clip).file_name}" if is_ours else ""


def source_link(source: str) -> str:
    """Address of where a published row is printed; empty where we know none."""
    paper = ARXIV.search(source)
    if paper:
        return f"https://arxiv.org/abs/{paper[1]}"
    return next((link for start, link in SOURCES.items() if source.startswith(start)), "")


def question_link(benchmark: str, **state: str) -> str:
    """Address of the question page with filters set.

    It begins with our own file's name, so no text of a name can make it lead elsewhere.
    """
    return "questions.html#" + urlencode({"benchmark": benchmark, **state})
