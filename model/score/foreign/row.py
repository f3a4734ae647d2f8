"""One prediction as any tool wrote it, in the words of MMAU's rows, and the faults of a file.

Where a tool's row does not tell by its own keys, a reader of that tool adds what it lacks. Sources:
EvolvingLMMs-Lab/lmms-eval@75571cf lmms_eval/loggers/evaluation_tracker.py and tasks/mmau/utils.py;
NVIDIA-NeMo/RL@05056d0 nemo_rl/evals/eval.py and nemo_rl/data/datasets/eval_datasets/mmau.py;
modelscope/ms-swift@0319d04 swift/pipelines/infer/infer.py.
"""

import ast
import contextlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from model.answers import first_answer
from storage.jsonl import Record
from storage.records.question import list_ids

# Read by the published scripts as they stand. MMAU's code reads the first, its README names the
# second; MMAR reads the third.
PUBLISHED_KEYS = ("model_output", "model_prediction", "answer_prediction")
COMPLETION_KEYS = ("completion", "response", "prediction", "pred", "model_answer", "output")
TEXT_KEYS = (*PUBLISHED_KEYS, *COMPLETION_KEYS, "filtered_resps")

ID_KEYS = ("id", "question_id", "uniq_id")
CLIP_KEYS = ("audio_id", "audio_path", "audio", "audios")
PROMPT_KEYS = ("prompt", "messages", "question", "query", "instruction", "input")
CHOICE_KEYS = ("choice_a", "choice_b", "choice_c", "choice_d")
GOLD_KEYS = ("answer_gt", "gt_answer", "ground_truth", "target")

SPACE = re.compile(r"\s+")


class Fault(NamedTuple):
    """What is wrong with one row."""

    kind: str
    """As a message says it of several, e.g. `rows are not objects`."""
    place: str
    """The question's id, or e.g. `line 7`."""
    told: str = ""
    """What was found, and what was expected."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, whichever tool wrote it."""

    place: str
    """E.g. `row 3` (from 0) or `line 4` (from 1)."""
    id: str | None
    """As the row has it."""
    texts: Mapping[str, object]
    """What was predicted, by key; a null is left out."""
    clip: str
    """Name of its clip's file without suffix; empty where there is none."""
    prompt: str
    """What was asked, choices included; empty where the row does not say."""
    question: str | None
    """The question's text, where the row has it by itself."""
    choices: tuple[str, ...] | str
    """The row's own choices; text that is no list stays text; empty where it has none."""
    gold: object
    """The right choice as the row has it: text, letter or position; None where it does not say."""


def tell(faults: Iterable[Fault], num_rows: int) -> str:
    """Every kind of fault with the number of its rows, the first ten, and what the first holds."""
    by_kind: dict[str, list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(fault)
    lines: list[str] = []
    for kind, listed in by_kind.items():
        told = f"; the first: {listed[0].told}" if listed[0].told else ""
        places = list_ids([fault.place for fault in listed])
        lines.append(f"{kind} ({len(listed)} of {num_rows}): {places}{told}")
    return "\n  ".join(lines)


def lmms_eval(fields: Record) -> Record:
    """A line of `--log_samples`: the raw text, not what the task's parser made of it.

    What that parser cannot read is a random choice. `doc_id` is a position in the hub's rows, and
    no id: MMAU's row stands in `submission`, MMAR's id in the metric, and else the prompt tells.
    """
    if "doc_id" not in fields or "filtered_resps" not in fields:
        return {}
    dicts = [cast("Record", value) for value in fields.values() if isinstance(value, dict)]
    row = next((found for found in dicts if "id" in found), Record())
    return {key: row[key] for key in ("id", "question", "choices") if key in row}


def nemo_rl(fields: Record) -> Record:
    """A row of evaluation_data.json, whose objects have become text in Python's form."""
    info = _decoded(fields.get("extra_env_info"))
    return {"target": cast("Record", info).get("ground_truth")} if isinstance(info, dict) else {}


def ms_swift(fields: Record) -> Record:
    """A line of `infer`, where `labels` is the answer as the data set has it."""
    labels = fields.get("labels")
    if labels is None or "response" not in fields:
        return {}
    return {"target": first_answer(str(labels)) or labels}


TOOLS = (lmms_eval, nemo_rl, ms_swift)


def to_row(place: str, fields: Record, keys: Sequence[str]) -> Row:
    """Read a row with MMAU's keys, or others for the same things; `keys` may hold its texts."""
    for tool in TOOLS:
        fields = {**fields, **tool(fields)}
    found = _first(fields, ID_KEYS)
    question = fields.get("question")
    choices = _choices(fields.get("choices", [fields[k] for k in CHOICE_KEYS if k in fields]))
    listed = [choices] if isinstance(choices, str) else choices
    return Row(
        place=place,
        id=None if found is None else str(found),
        texts={key: fields[key] for key in keys if fields.get(key) is not None},
        clip=_clip(_first(fields, CLIP_KEYS)),
        prompt="\n".join([_said(_first(fields, PROMPT_KEYS)), *listed]),
        question=question if isinstance(question, str) else None,
        choices=choices,
        # `answer` beside choices is the benchmark's own; elsewhere it may be what was predicted.
        gold=_first(fields, ("answer", *GOLD_KEYS) if choices else GOLD_KEYS),
    )


def plain(text: str) -> str:
    """A text without regard to spacing, and with the quotes that Python's repr escapes put back."""
    return SPACE.sub(" ", text.replace("\\'", "'").replace('\\"', '"')).strip()


def _first(fields: Record, keys: Iterable[str]) -> Any:  # noqa: ANN401  decoded JSON
    return next((fields[key] for key in keys if fields.get(key) not in (None, "")), None)


def _decoded(value: Any) -> Any:  # noqa: ANN401  decoded JSON
    """What a text holds as JSON or in Python's form, as in a CSV; other values as they are."""
    for decode in (json.loads, ast.literal_eval):
        if isinstance(value, str):
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                value = decode(value)
    return value


def _choices(value: Any) -> tuple[str, ...] | str:  # noqa: ANN401  decoded JSON
    """Choices as a list, a dict by letter, or the text of one; any other text as it is."""
    value = _decoded(value)
    if isinstance(value, dict):
        value = [text for _, text in sorted(cast("dict[str, Any]", value).items())]
    if isinstance(value, list | tuple):
        return tuple(str(c) for c in cast("Sequence[Any]", value) if c is not None)
    return "" if value is None else str(value)


def _said(value: Any) -> str:  # noqa: ANN401  decoded JSON
    """A text, or that of messages and their parts; what the model answered is not asked."""
    if isinstance(value, list):
        return "\n".join(map(_said, cast("list[Any]", value)))
    if isinstance(value, dict):
        fields = cast("Record", value)
        is_asked = fields.get("role") != "assistant"
        return _said(fields.get("text") or fields.get("content")) if is_asked else ""
    return value if isinstance(value, str) else ""


def _clip(value: Any) -> str:  # noqa: ANN401  decoded JSON
    if isinstance(value, list) and len(cast("list[Any]", value)) == 1:
        value = cast("list[Any]", value)[0]
    if isinstance(value, dict):  # as `datasets` holds a file: its bytes, and its name
        value = cast("Record", value).get("path")
    return Path(value).stem if isinstance(value, str) else ""
