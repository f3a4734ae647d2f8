"""One reader a tool: its row in the words of MMAU's, or None where the row is not that tool's.

Sources: EvolvingLMMs-Lab/lmms-eval@75571cf lmms_eval/loggers/evaluation_tracker.py and
tasks/mmau/utils.py; NVIDIA-NeMo/RL@05056d0 nemo_rl/evals/eval.py and
nemo_rl/data/datasets/eval_datasets/mmau.py; modelscope/ms-swift@0319d04
swift/pipelines/infer/infer.py.
"""

import ast
import contextlib
from typing import Any, cast

from model.answers import first_answer
from model.score.foreign.row import messages_text
from storage.jsonl import Record


def lmms_eval(fields: Record) -> Record | None:
    """A line of `--log_samples`: the raw text, not what the task's parser made of it.

    What that parser cannot read is a random choice. `doc_id` is a position in the hub's rows, and
    no id: MMAU's row stands in `submission`, MMAR's id in the metric, and else the prompt tells.
    """
    if "doc_id" not in fields or "filtered_resps" not in fields:
        return None
    dicts = [cast("Record", value) for value in fields.values() if isinstance(value, dict)]
    row = next((found for found in dicts if "id" in found), Record())
    asked = {key: row[key] for key in ("id", "question", "choices") if key in row}
    return {
        **asked,
        "prompt": fields.get("input"),
        "filtered_resps": fields["filtered_resps"],
        "target": fields.get("target"),
    }


def nemo_rl(fields: Record) -> Record | None:
    """A row of evaluation_data.json: the prompt as text without audio, in R1-AQA's wording."""
    if "extra_env_info" not in fields:
        return None
    info: Any = None
    with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
        info = ast.literal_eval(str(fields["extra_env_info"]))  # Python's form, not JSON
    gold = cast("Record", info).get("ground_truth") if isinstance(info, dict) else None
    return {"prompt": fields.get("prompt"), "response": fields.get("response"), "target": gold}


def ms_swift(fields: Record) -> Record | None:
    """A line of `infer`: `response`, `labels`, `logprobs`, then the data set's own row.

    Its `messages` end with the response; `labels` is the answer as the data set has it.
    """
    messages = fields.get("messages")
    if "response" not in fields or not ("labels" in fields or isinstance(messages, list)):
        return None
    labels = fields.get("labels")
    tagged = first_answer(labels) if isinstance(labels, str) else None
    prompt = messages_text(cast("list[Any]", messages)) if isinstance(messages, list) else None
    return {**fields, "prompt": prompt, "target": labels if tagged is None else tagged}


TOOLS = (lmms_eval, nemo_rl, ms_swift)


def as_mmau(fields: Record) -> Record:
    """A row in the words of MMAU's, whichever tool wrote it."""
    return next((row for tool in TOOLS if (row := tool(fields)) is not None), fields)
