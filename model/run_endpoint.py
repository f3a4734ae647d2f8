"""Entry point for models behind an endpoint: `python -m model.run_endpoint RUN.json`.

The endpoint speaks OpenAI's chat protocol and takes audio (vLLM, SGLang, an API). A clip is sent as
mono PCM16 at 16 kHz, before the text. What may pass (429, 5xx, no answer in time, a cut connection,
an answer that is no answer) is tried again; a request that the endpoint refuses is a wrong answer
and says so; what failed to the last is no answer: the run ends naming it, and goes on there when
started again. The key comes from an environment variable and is written nowhere.
"""

import base64
import io
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, cast

import requests
import soundfile  # pyright: ignore[reportMissingTypeStubs]  it has none

from model.command import run_command
from model.config import EndpointConfig
from model.infer.jobs import (
    InferenceJob,
    InferenceRun,
    Item,
    JobFolder,
    items_of,
    not_asked,
    read_answer,
    say,
)
from storage.audio import SAMPLE_RATE_HZ, UnreadableAudioError, read_audio, silence
from storage.errors import PipelineError
from storage.records.evaluation import Answer
from storage.records.prompt import Prompt
from storage.records.question import list_ids

CONNECT_S = 10.0
LONGEST_WAIT_S = 60.0
WRONG_SETTINGS = {401, 403, 404}  # the key, the address or the model's name
SHOWN = 200  # characters of an endpoint's own words
OK, TOO_MANY = 200, 429
REFUSED = "refused"
DEAD = 3  # questions lost one after another, after which no further one is asked


class FailedError(Exception):
    """Why a question has no answer, to be asked again another time."""

    wait_s: float | None = None
    """Seconds after which the endpoint wants to be asked again; None: it says nothing."""


def answer_all(run: InferenceRun) -> None:
    """Do all jobs of one endpoint.

    Raises:
        PipelineError: If its settings are wrong, or questions were left without an answer.
    """
    for job in run.jobs:
        folder = JobFolder(job)
        folder.start()
        items = [i for i in items_of(job, folder.questions) if i.id not in folder.answered]
        started_s = time.monotonic()
        failed = _ask_all(items, folder, cast("EndpointConfig", job.endpoint))
        folder.finish(time.monotonic() - started_s)
        errors = [answer.error or "" for answer in folder.answered.values()]
        if num_refused := sum(error.startswith(REFUSED) for error in errors):
            say(f"{job.run.name}: {num_refused} refused, count as wrong")
        if failed:
            first = next(iter(failed))
            raise PipelineError(
                f"{job.run.name}: {job.run.model.path} answered {len(items) - len(failed)} of "
                f"{len(items)} questions; without an answer: {list_ids(list(failed))}. {first}: "
                f"{failed[first]}. Run evaluate again: it goes on there"
            )


def _ask_all(items: Sequence[Item], folder: JobFolder, endpoint: EndpointConfig) -> dict[str, str]:
    """Ask side by side, writing each answer as it comes; returns why others have none, by id."""
    key, is_over = "", Event()
    if endpoint.key_from and not (key := os.environ.get(endpoint.key_from, "")):
        raise PipelineError(
            f"{endpoint.name}: the environment variable {endpoint.key_from} (key_from) is not set"
        )
    ask = partial(_ask, job=folder.job, endpoint=endpoint, key=key, is_over=is_over)
    failed: dict[str, str] = {}
    num_lost = 0
    with ThreadPoolExecutor(endpoint.concurrency) as pool:
        asked = {pool.submit(ask, item): item for item in items}
        for future in as_completed(asked):
            try:
                folder.append(future.result())
                num_lost = 0
            except FailedError as error:
                failed[asked[future].id] = str(error)
                num_lost += 1
                if num_lost == DEAD:
                    is_over.set()
            except PipelineError:
                is_over.set()
                raise
    return failed


def _ask(
    item: Item, *, job: InferenceJob, endpoint: EndpointConfig, key: str, is_over: Event
) -> Answer:
    """Ask until there is an answer, or a refusal, or no attempt is left."""
    lost, body = FailedError("not asked any more"), dict[str, Any]()
    for attempt in range(endpoint.attempts):
        if is_over.is_set():
            break
        if attempt:
            wait_s = lost.wait_s or endpoint.retry_wait_s * 2 ** (attempt - 1)
            time.sleep(min(LONGEST_WAIT_S, wait_s))
        try:
            body = body or _body(item, job, endpoint)
            return _attempt(item, body, job.prompt, endpoint, key)
        except UnreadableAudioError as error:
            return not_asked(item, str(error))
        except FailedError as error:
            lost = error
    raise lost


def _attempt(
    item: Item, body: Mapping[str, Any], prompt: Prompt, endpoint: EndpointConfig, key: str
) -> Answer:
    try:
        response = requests.post(
            f"{endpoint.url.rstrip('/')}/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=(CONNECT_S, endpoint.timeout_s),
        )
    except requests.RequestException as error:
        raise FailedError(f"{type(error).__name__} within {endpoint.timeout_s:g} s") from error
    status = response.status_code
    told = response.text[:SHOWN].replace(key, "***") if key else response.text[:SHOWN]
    if status in WRONG_SETTINGS:
        raise PipelineError(
            f"{endpoint.name}: {endpoint.url} answers {status}: {told}. Check its `url`, its "
            "`model` and the key that `key_from` names"
        )
    if status == OK:
        return _answer(item, response.text, prompt)
    if 400 <= status < 500 and status != TOO_MANY:
        return not_asked(item, f"{REFUSED} ({status}): {told}")
    lost = FailedError(f"it answered {status}: {told}")
    with suppress(ValueError):  # a date
        lost.wait_s = float(response.headers.get("Retry-After", 0))
    raise lost


def _answer(item: Item, content: str, prompt: Prompt) -> Answer:
    try:
        return _answer_of(item, json.loads(content), prompt)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        msg = f"its answer is no chat completion: {type(error).__name__} {error}"
        raise FailedError(msg) from error


def _answer_of(item: Item, found: Any, prompt: Prompt) -> Answer:  # noqa: ANN401  decoded JSON
    choice, usage = found["choices"][0], found.get("usage") or {}
    refusal, text = choice["message"].get("refusal"), choice["message"].get("content")
    if refusal or choice.get("finish_reason") == "content_filter":
        return not_asked(item, f"{REFUSED}: {(refusal or 'content filter')[:SHOWN]}")
    if not isinstance(text, str):
        raise TypeError(f"content is {type(text).__name__}")
    return read_answer(
        item,
        prompt,
        text,
        num_tokens=int(usage.get("completion_tokens") or 0),
        finished=choice.get("finish_reason") != "length",
    )


def _body(item: Item, job: InferenceJob, endpoint: EndpointConfig) -> dict[str, Any]:
    """The request, with the clip before the text."""
    if item.error:
        raise UnreadableAudioError(item.error)
    content = io.BytesIO()
    samples = read_audio(item.clip) if item.clip else silence(item.silence_s)
    soundfile.write(content, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    data = base64.b64encode(content.getvalue()).decode()
    audio = {"data": data, "format": "wav"}
    if endpoint.audio_part == "audio_url":
        audio = {"url": f"data:audio/wav;base64,{data}"}
    parts: list[dict[str, Any]] = [
        {"type": endpoint.audio_part, endpoint.audio_part: audio},
        {"type": "text", "text": item.text},
    ]
    system = [] if item.system is None else [{"role": "system", "content": item.system}]
    return {
        "model": endpoint.model,
        "max_tokens": job.decoding.max_new_tokens,
        **endpoint.parameters,
        "messages": [*system, {"role": "user", "content": parts}],
    }


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(run_command(arguments, "RUN.json", lambda p: answer_all(InferenceRun.read(Path(p)))))
