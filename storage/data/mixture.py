"""What several sources are together: held-out rows, weights, and what is there twice."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from storage.data.source import DataSource
from storage.hub import as_asked
from storage.records.example import Example


def hold_out(
    source: DataSource, examples: Sequence[Example], content: Mapping[str, str]
) -> tuple[list[Example], list[Example]]:
    """Examples to train on, and those kept back; all about one clip are on one side.

    The order of the clips depends on the seed and their content alone.
    """
    if source.validation:
        return [], list(examples)

    def rank(sha256: str) -> bytes:
        return hashlib.sha256(f"{source.seed} {sha256}".encode()).digest()

    num_rows = Counter(content[example.audio_path] for example in examples)
    kept_back: set[str] = set()
    left = source.held_out
    for sha256 in sorted(num_rows, key=rank):
        if left <= 0:
            break
        kept_back.add(sha256)
        left -= num_rows[sha256]
    return (
        [example for example in examples if content[example.audio_path] not in kept_back],
        [example for example in examples if content[example.audio_path] in kept_back],
    )


def weigh(sources: Sequence[tuple[DataSource, list[Example]]]) -> list[Example]:
    """All examples; where shares of the draws are set, with a weight that is 1 on average."""
    shares = [source.weight if examples else 0 for source, examples in sources]
    total = sum(share or 0 for share in shares)
    num_examples = sum(len(examples) for _, examples in sources)
    found: list[Example] = []
    for (_, examples), share in zip(sources, shares, strict=True):
        weight = round(share / total * num_examples / len(examples), 6) if share else None
        found += [replace(example, weight=weight) for example in examples]
    return found


def repeated(
    train: Iterable[Example], held_out: Iterable[Example], content: Mapping[str, str]
) -> list[str]:
    """What is to be said of questions that are asked twice on the same audio."""
    first: dict[object, Example] = {}
    twice: list[tuple[Example, Example]] = []
    for example in train:
        before = first.setdefault(_asked(example, content), example)
        if before is not example:
            twice.append((before, example))
    both = [(first[key], row) for row in held_out if (key := _asked(row, content)) in first]
    said = (("are asked twice on the same audio", twice), ("are held out and trained on", both))
    return [
        f"{len(pairs)} questions {what}; the first: id {pairs[0][0].id} and id {pairs[0][1].id}"
        for what, pairs in said
        if pairs
    ]


def _asked(example: Example, content: Mapping[str, str]) -> object:
    return content[example.audio_path], as_asked(
        example.question_text, sorted(example.multi_choice)
    )


def held_by(examples: Iterable[Example], holds: Mapping[str, Sequence[str]]) -> list[str]:
    """Which benchmarks hold, by their name, data sets that are trained on."""
    names = {example.dataset_name.casefold(): example.dataset_name for example in examples}
    return [
        f"trains on {names[name.casefold()]}, which {benchmark} holds by construction"
        for benchmark, held in holds.items()
        for name in held
        if name.casefold() in names
    ]
