"""Entry point of the inference process: `python -m model.run_inference RUN.json`.

RUN.json holds an `InferenceRun`: many jobs, so that imports are paid once, a model is loaded once
for all of its jobs, and a benchmark's features are computed once for all models. What jobs ask
about the same clips is asked side by side, so that a clip is read once for all of it. What a job
leaves is said in `model.infer.jobs`.
"""

import gc
import os
import platform
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import torch
from transformers import ProcessorMixin
from transformers.utils import logging as transformers_logging

from model.command import run_command
from model.config import Precision
from model.infer.decoder import Completion, Decoder, find_disagreements
from model.infer.jobs import (
    InferenceJob,
    InferenceRun,
    Item,
    JobFolder,
    installed_versions,
    items_of,
    not_asked,
    read_answer,
    say,
)
from model.infer.kept import CHECKED_OF, KeptAnswers
from model.infer.prompts import EncodedPrompt, PromptCache, Reader, evenly, readers_digest
from model.network.features import too_short
from model.network.loading import load_model, load_processor
from storage.errors import PipelineError
from storage.host.checks import model_folder
from storage.jsonl import write_json
from storage.manifest import digest_of
from storage.records.evaluation import Answer
from storage.records.question import list_ids


class Asked(NamedTuple):
    """One question of one job."""

    folder: JobFolder
    item: Item
    kept: KeptAnswers | None
    """What the workspace's experiments share; None: nothing."""


def infer(run: InferenceRun) -> None:
    """Do all jobs, model by model.

    Raises:
        PipelineError: If a model cannot be loaded, its batches disagree with single prompts, or a
            file has changed.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes that read prompts are forked
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if run.evaluate.threads is not None:
        torch.set_num_threads(run.evaluate.threads)
    by_model: dict[str, list[JobFolder]] = {}
    for job in run.jobs:
        folder = JobFolder(job)
        if folder.is_done:
            say(f"{folder.progress}, before this run")
        else:
            by_model.setdefault(job.run.model.path, []).append(folder)
    prompt_cache = PromptCache()
    for model_path, folders in by_model.items():
        _infer_model(model_path, folders, run, prompt_cache)
        if run.device != "cpu":  # a 7B and the next one do not fit side by side
            gc.collect()
            torch.cuda.empty_cache()


def _infer_model(
    model_path: str, folders: Sequence[JobFolder], run: InferenceRun, prompt_cache: PromptCache
) -> None:
    decoding = folders[0].job.decoding  # one model's runs of one evaluation are decoded alike
    processor = load_processor(model_path)
    decoder = Decoder(
        load_model(
            model_path,
            precision=cast("Precision", decoding.precision),
            device=torch.device(run.device),
        ),
        processor,
        max_new_tokens=decoding.max_new_tokens,
        batch_size=decoding.batch_size,
        way=decoding.decode,
    )
    # Commit of a model that was loaded from the hub, told from where it lies in the cache.
    found = None if Path(model_path).is_dir() else model_folder(model_path)
    revision = found and found.name
    decides = [readers_digest(processor), revision, decoder.model.device.type]
    heard: dict[object, list[JobFolder]] = {}
    for folder in folders:
        job = folder.job
        about = (job.questions, job.audio, job.run.key.control == "silence")
        heard.setdefault(about, []).append(folder)
    for group in heard.values():  # what is asked about the same clips is asked side by side
        asked: list[Asked] = []
        for folder in group:
            kept = KeptAnswers(run.kept, folder.job, decides) if run.kept else None
            items = items_of(folder.job, folder.questions)
            _refuse_short(folder.job, items, processor)
            asked += [Asked(folder, item, kept) for item in items]
        reader = Reader([each.item for each in asked], processor, run.features, prompt_cache)
        _answer(asked, reader, decoder, run, revision)


def _refuse_short(job: InferenceJob, items: Sequence[Item], processor: ProcessorMixin) -> None:
    """Refuse clips of which this model hears nothing, unless they may count as wrong."""
    found = {
        item.id: fault
        for item in items
        if item.clip and (fault := too_short(item.num_samples, processor))
    }
    if found and not job.allow_unreadable:
        first = next(iter(found))
        raise PipelineError(
            f"{job.run.name}: {len(found)} of {len(items)} clips are too short: "
            f"{list_ids(list(found))}. {first} has {found[first]}. Get longer ones, or set the "
            "benchmark's `allow_unreadable: true`: they then count as wrong"
        )


def _answer(
    asked: Sequence[Asked],
    reader: Reader,
    decoder: Decoder,
    run: InferenceRun,
    revision: str | None,
) -> None:
    """Do jobs that ask about the same clips; answers of an earlier run are kept."""
    started_s = time.monotonic()
    places: dict[JobFolder, list[int]] = {}
    for index in reader.order:
        places.setdefault(asked[index].folder, []).append(index)
    for folder, indices in places.items():
        tried: list[tuple[Asked, Answer]] = []
        if folder.job.run.key.control is None and run.evaluate.parity_questions:
            tried = _require_parity(asked, indices, reader, decoder, run)
        folder.start(revision)
        if run.evaluate.reuse:
            _take_over(asked, indices, reader, decoder)
        for question, said in tried:
            _write(question, said)
    wanted = [i for i in reader.order if asked[i].item.id not in asked[i].folder.answered]
    batches = reader.batches(
        wanted, batch_size=decoder.at_once(reader.longest), num_workers=run.evaluate.workers
    )
    for indices, ready in batches:
        questions = [asked[index] for index in indices]
        for question, said in zip(questions, _answers(questions, ready, decoder), strict=True):
            _write(question, said)
    for folder in places:
        folder.finish((time.monotonic() - started_s) / len(places))


def _write(asked: Asked, answer: Answer) -> None:
    """Write an answer down, unless the question has one."""
    folder, item, kept = asked
    if item.id not in folder.answered:
        folder.append(answer)
        if kept:
            kept.keep(item, answer)


def _take_over(
    asked: Sequence[Asked], indices: Sequence[int], reader: Reader, decoder: Decoder
) -> None:
    """Write down what was answered before to a job's questions, unless it is otherwise now."""
    folder, _, kept = asked[indices[0]]
    index_of = {asked[index].item.id: index for index in indices}
    due = [asked[i].item for name, i in index_of.items() if name not in folder.answered]
    found = kept.find(due) if kept else {}
    if not found:
        return
    checked = sorted(found)[::CHECKED_OF]
    again = decoder.complete([reader[index_of[name]].prompt() for name in checked])
    pairs = zip(checked, again, strict=True)
    others = [name for name, said in pairs if said.text != found[name].completion]
    if others:
        say(f"{folder.job.run.name}: asks all anew, as {list_ids(others)} is answered otherwise")
        return
    for answer in found.values():
        folder.append(answer)
    say(f"{folder.job.run.name}: {len(found)} taken over, {len(checked)} asked again: alike")


def _answers(
    asked: Sequence[Asked], ready: Sequence[EncodedPrompt], decoder: Decoder
) -> list[Answer]:
    """The answers to a batch; what cannot be asked has an error instead of a completion."""
    readable = [encoded.prompt() for encoded in ready if encoded.error is None]
    completions = iter(decoder.complete(readable))
    return [
        not_asked(question.item, encoded.error)
        if encoded.error is not None
        else _as_answer(question, encoded, next(completions))
        for question, encoded in zip(asked, ready, strict=True)
    ]


def _as_answer(asked: Asked, encoded: EncodedPrompt, said: Completion) -> Answer:
    return read_answer(
        asked.item,
        asked.folder.job.prompt,
        said.text,
        num_tokens=len(said.token_ids),
        finished=said.finished,
        cut=encoded.is_cut,
    )


def _require_parity(
    asked: Sequence[Asked],
    indices: Sequence[int],
    reader: Reader,
    decoder: Decoder,
    run: InferenceRun,
) -> list[tuple[Asked, Answer]]:
    """Stop where a batch changes answers; asked once by what decides that, not by weights.

    Returns:
        What the batches answered, so that it is not asked again.
    """
    network, job = decoder.model, asked[indices[0]].folder.job
    shape = {name: v for name, v in network.config.to_dict().items() if name != "_name_or_path"}
    on_gpu = network.device.type == "cuda"
    card = torch.cuda.get_device_name(network.device) if on_gpu else platform.processor()
    decides = [shape, job.decoding.model_dump(), card, installed_versions(), _sources()]
    note = run.features and run.features / f"parity-{digest_of(decides)[:16]}.json"
    if note and note.exists():
        return []
    ready = {index: reader[index] for index in evenly(indices, run.evaluate.parity_questions)}
    put = {index: read for index, read in ready.items() if read.error is None}
    prompts = [read.prompt() for read in put.values()]
    in_batch = decoder.complete(prompts)
    ids = [asked[index].item.id for index in put]
    found = find_disagreements(decoder, ids, prompts, in_batch)
    if found:
        first = found[0]
        raise PipelineError(
            f"{job.run.name}: {len(found)} of {len(put)} questions are answered otherwise in a "
            f"batch than alone, first {first.id}: alone {first.alone!r}, in a batch "
            f"{first.in_batch!r} ({first.gap_nats:.3f} nats apart). A batch must not change "
            "answers: set evaluate.batch_size to 1, or evaluate.parity_questions to 0 to go on all "
            "the same"
        )
    if note:
        write_json(note, {"run": job.run.name, "num_questions": len(put), "card": card})
    return [
        (asked[index], _as_answer(asked[index], read, said))
        for (index, read), said in zip(put.items(), in_batch, strict=True)
    ]


@cache
def _sources() -> str:
    """Digest of what reads and decodes."""
    room = sorted((Path(__file__).parent / "network").glob("*.py"))
    return digest_of([path.read_text() for path in room])


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(run_command(arguments, "RUN.json", lambda path: infer(InferenceRun.read(Path(path)))))
