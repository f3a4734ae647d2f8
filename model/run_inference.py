"""Entry point of the inference process: `python -m model.run_inference RUN.json`.

RUN.json holds an `InferenceRun`: many jobs, so that imports are paid once, a model is loaded once
for all of its jobs, and a benchmark's features are computed once for all models. What jobs ask
about the same clips is asked side by side, so that a clip is read once for all of it. A job's
folder gets

- run.json before the first answer: everything that decides the answers. A folder with another one
  is started anew;
- answers.jsonl, a line as each answer comes, so that a killed run goes on where it was.

Under torchrun, each process takes every n-th model, on its own GPU.
"""

import gc
import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import torch
from transformers import ProcessorMixin
from transformers.utils import logging as transformers_logging

from model.answers import extract_answer
from model.command import run_command
from model.config import Precision
from model.infer.decoder import Decoder, find_disagreements
from model.infer.items import Item, items_of, num_samples
from model.infer.jobs import (
    InferenceJob,
    InferenceRun,
    JobFolder,
    Progress,
    installed_versions,
    read_run,
    say,
)
from model.infer.kept import CHECKED_OF, KeptAnswers
from model.infer.prompts import EncodedPrompt, PromptCache, PromptSet, Reader, evenly
from model.network.features import too_short
from model.network.loading import load_model, load_processor
from storage.errors import PipelineError
from storage.host.checks import model_folder
from storage.jsonl import write_json
from storage.manifest import digest_of
from storage.records.evaluation import Answer, Decoding
from storage.records.question import list_ids


class Asked(NamedTuple):
    """One question of one job."""

    folder: JobFolder
    item: Item
    kept: KeptAnswers | None
    """What the workspace's experiments share; None: nothing."""


def infer(run: InferenceRun) -> None:
    """Do all jobs of this process, model by model.

    Raises:
        PipelineError: If a model cannot be loaded, its batches disagree with single prompts, or a
            file has changed.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes that read prompts are forked
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if run.evaluate.threads is not None:
        torch.set_num_threads(run.evaluate.threads)
    device = _device(run.device)
    jobs_of: dict[str, list[JobFolder]] = {}
    for job in _of_this_rank(run.jobs):
        folder = JobFolder(job)
        if folder.is_done:
            count = folder.num_answered
            say(f"{job.run.name}: {count}/{count} answered, before this run")
        else:
            folder.set_other_run_aside()
            jobs_of.setdefault(job.model_path, []).append(folder)
    cache = PromptCache()
    for model_path, folders in jobs_of.items():
        _infer_model(model_path, folders, run, cache)
        if device.type == "cuda":  # a 7B and the next one do not fit side by side
            gc.collect()
            torch.cuda.empty_cache()


def _of_this_rank(jobs: Iterable[InferenceJob]) -> list[InferenceJob]:
    """The jobs of this process's models: all, or under torchrun those of every n-th model."""
    rank, num_ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    listed = list(jobs)
    mine = set(list(dict.fromkeys(job.model_path for job in listed))[rank::num_ranks])
    return [job for job in listed if job.model_path in mine]


def _infer_model(
    model_path: str, folders: Sequence[JobFolder], run: InferenceRun, cache: PromptCache
) -> None:
    decoding = _decoding(folders[0].job)  # one model's runs of one evaluation are decoded alike
    processor = load_processor(model_path)
    decoder = Decoder(
        load_model(
            model_path, precision=cast("Precision", decoding.precision), device=_device(run.device)
        ),
        processor,
        max_new_tokens=decoding.max_new_tokens,
        batch_size=decoding.batch_size,
    )
    readers = _digest(processor)
    heard: dict[object, list[JobFolder]] = {}
    for folder in folders:
        job = folder.job
        about = (job.questions, job.audio, job.run.key.control == "silence")
        heard.setdefault(about, []).append(folder)
    for group in heard.values():  # what is asked about the same clips is asked side by side
        asked: list[Asked] = []
        for folder in group:
            job = folder.job
            decides = [readers, _revision(job.model_path), decoder.model.device.type]
            kept = KeptAnswers(run.kept, job, decides) if run.kept else None
            items = items_of(job, folder.questions)
            _refuse_short(job, items, processor)
            asked += [Asked(folder, item, kept) for item in items]
        items = [question.item for question in asked]
        prompts = PromptSet(
            Reader(items, processor, run.features),
            items,
            key=digest_of([readers, items]),
            cache=cache,
        )
        _answer(asked, prompts, decoder, run)


def _refuse_short(job: InferenceJob, items: Sequence[Item], processor: ProcessorMixin) -> None:
    """Refuse clips of which this model hears nothing, unless they may count as wrong."""
    found = {
        item.id: fault
        for item in items
        if item.clip and (fault := too_short(num_samples(item), processor))
    }
    if found and not job.allow_unreadable:
        first = next(iter(found))
        msg = (
            f"{job.run.name}: {len(found)} of {len(items)} clips are too short: "
            f"{list_ids(list(found))}. {first} has {found[first]}. Get longer ones, or set the "
            "benchmark's `allow_unreadable: true`: they then count as wrong"
        )
        raise PipelineError(msg)


def _decoding(job: InferenceJob) -> Decoding:
    if job.run.decoding is None:
        msg = f"{job.run.name}: another tool's predictions are not asked here"
        raise ValueError(msg)
    return job.run.decoding


def _answer(
    asked: Sequence[Asked], prompts: PromptSet, decoder: Decoder, run: InferenceRun
) -> None:
    """Do jobs that ask about the same clips; answers of an earlier run are kept."""
    started_s = time.monotonic()
    places: dict[JobFolder, list[int]] = {}
    for index in prompts.order:
        places.setdefault(asked[index].folder, []).append(index)
    for folder, indices in places.items():
        if folder.job.run.key.control is None and run.evaluate.parity_questions:
            _require_parity(folder.job, asked, indices, prompts, decoder, run)
        folder.start(_revision(folder.job.model_path))
        if run.evaluate.reuse:
            _take_over(folder, [asked[index] for index in indices], indices, prompts, decoder)
    wanted = [i for i in prompts.order if asked[i].item.id not in asked[i].folder.answered]
    progress = {
        folder: Progress(
            folder.job.run.name, num_before=folder.num_answered, num_total=len(folder.questions)
        )
        for folder in places
    }
    batches = prompts.batches(
        wanted, batch_size=decoder.at_once(prompts.longest), num_workers=run.evaluate.workers
    )
    for indices, ready in batches:
        questions = [asked[index] for index in indices]
        for (folder, item, kept), answer in zip(
            questions, _answers(questions, ready, decoder), strict=True
        ):
            folder.append(answer)
            if kept:
                kept.keep(item, answer)
        for folder in places:
            progress[folder].show(folder.num_answered)
    for folder in places:
        folder.finish((time.monotonic() - started_s) / len(places))
        progress[folder].close()


def _take_over(
    folder: JobFolder,
    asked: Sequence[Asked],
    indices: Sequence[int],
    prompts: PromptSet,
    decoder: Decoder,
) -> None:
    """Write down what was answered before to the same, unless it is answered otherwise now."""
    kept = asked[0].kept
    found = (
        kept.find(question.item for question in asked if question.item.id not in folder.answered)
        if kept
        else {}
    )
    if not found:
        return
    index_of = {question.item.id: index for question, index in zip(asked, indices, strict=True)}
    checked = sorted(found)[::CHECKED_OF]
    ready = prompts.read([index_of[name] for name in checked])
    again = decoder.complete([encoded.prompt() for encoded in ready])
    pairs = zip(checked, again, strict=True)
    others = [name for name, said in pairs if said.text != found[name].completion]
    if others:
        say(f"{folder.job.run.name}: asks all anew, as {list_ids(others)} is answered otherwise")
        return
    for answer in found.values():
        folder.append(answer)
    say(f"{folder.job.run.name}: {len(found)} taken over, {len(checked)} asked again: alike")


def _revision(model_path: str) -> str | None:
    """Commit of a model that was loaded from the hub, told from where it lies in the cache."""
    if Path(model_path).is_dir():
        return None
    folder = model_folder(model_path)
    return None if folder is None else folder.name


def _answers(
    asked: Sequence[Asked], ready: Sequence[EncodedPrompt], decoder: Decoder
) -> list[Answer]:
    """The answers to a batch; what cannot be asked has an error instead of a completion."""
    readable = [index for index, item in enumerate(ready) if item.error is None]
    completions = decoder.complete([ready[index].prompt() for index in readable])
    answers = [
        Answer(question.item.id, "", None, finished=False, error=read.error)
        for question, read in zip(asked, ready, strict=True)
    ]
    for index, completion in zip(readable, completions, strict=True):
        folder, item, _ = asked[index]
        extracted = extract_answer(completion.text, folder.job.prompt, item.choices)
        answers[index] = Answer(
            item.id,
            completion.text,
            extracted.answer,
            num_tokens=len(completion.token_ids),
            finished=completion.finished,
            cut=ready[index].is_cut,
            rule=extracted.rule,
        )
    return answers


def _require_parity(
    job: InferenceJob,
    asked: Sequence[Asked],
    indices: Sequence[int],
    prompts: PromptSet,
    decoder: Decoder,
    run: InferenceRun,
) -> None:
    """Stop where a batch changes answers; asked once by what decides that, not by weights."""
    network, folder = decoder.model, run.features
    shape = {name: v for name, v in network.config.to_dict().items() if name != "_name_or_path"}
    on_gpu = network.device.type == "cuda"
    card = torch.cuda.get_device_name(network.device) if on_gpu else platform.processor()
    decides = [shape, _decoding(job).model_dump(), card, installed_versions(), _sources()]
    note = None if folder is None else folder / f"parity-{digest_of(decides)[:16]}.json"
    if note is not None and note.exists():
        return
    indices = evenly(indices, run.evaluate.parity_questions)
    ready = zip(indices, prompts.read(indices), strict=True)
    put = {asked[index].item.id: read.prompt() for index, read in ready if read.error is None}
    found = find_disagreements(decoder, list(put), list(put.values()))
    if found:
        first = found[0]
        msg = (
            f"{job.run.name}: {len(found)} of {len(put)} questions are answered otherwise in a "
            f"batch than alone, first {first.id}: alone {first.alone!r}, in a batch "
            f"{first.in_batch!r} ({first.gap_nats:.3f} nats apart). A batch must not change "
            "answers: set evaluate.batch_size to 1, or evaluate.parity_questions to 0 to go on all "
            "the same"
        )
        raise PipelineError(msg)
    if note is not None:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, {"run": job.run.name, "num_questions": len(put), "card": card})


@cache
def _sources() -> str:
    """Digest of what reads and decodes."""
    room = sorted((Path(__file__).parent / "network").glob("*.py"))
    return digest_of([path.read_text() for path in room])


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    local_rank = os.environ.get("LOCAL_RANK", "0")
    return torch.device(f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu")


def _digest(processor: ProcessorMixin) -> str:
    """Names everything that turns a question into a prompt."""
    tokenizer = processor.tokenizer
    parts = [processor.feature_extractor.to_json_string(), tokenizer.backend_tokenizer.to_str()]
    return digest_of([*parts, processor.chat_template])


if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:], "RUN.json", lambda path: infer(read_run(path))))
