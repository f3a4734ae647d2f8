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
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple, cast

import requests
import soundfile  # pyright: ignore[reportMissingTypeStubs]  it has none

from model.answers import extract_answer
from model.command import run_command
from model.config import EndpointConfig
from model.infer.items import Item, items_of
from model.infer.jobs import InferenceRun, JobFolder, Progress, read_run, say
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


class Failed(NamedTuple):
    """Why a question has no answer, to be asked again another time."""

    reason: str
    wait_s: float | None = None
    """Seconds after which the endpoint wants to be asked again; None: it says nothing."""


def answer_all(run: InferenceRun) -> None:
    """Do all jobs of one endpoint.

    Raises:
        PipelineError: If its settings are wrong, or questions were left without an answer.
    """
    for job in run.jobs:
        folder = JobFolder(job)
        folder.set_other_run_aside()
        folder.start()
        items = [i for i in items_of(job, folder.questions) if i.id not in folder.answered]
        started_s = time.monotonic()
        endpoint = cast("EndpointConfig", job.endpoint)
        failed = _ask_all(items, endpoint, run.evaluate.max_new_tokens, folder)
        folder.finish(time.monotonic() - started_s)
        errors = [answer.error or "" for answer in folder.answered.values()]
        if num_refused := sum(error.startswith(REFUSED) for error in errors):
            say(f"{job.run.name}: {num_refused} refused, count as wrong")
        if failed:
            first = next(iter(failed))
            msg = (
                f"{job.run.name}: {endpoint.url} answered {len(items) - len(failed)} of "
                f"{len(items)} questions; without an answer: {list_ids(list(failed))}. {first}: "
                f"{failed[first]}. Run evaluate again: it goes on there"
            )
            raise PipelineError(msg)


def _ask_all(
    items: list[Item], endpoint: EndpointConfig, max_tokens: int, folder: JobFolder
) -> dict[str, str]:
    """Ask side by side, writing each answer as it comes; returns why others have none, by id."""
    key, prompt = _key(endpoint), folder.job.prompt
    total = len(folder.questions)
    progress = Progress(folder.job.run.name, num_before=folder.num_answered, num_total=total)
    failed: dict[str, str] = {}
    num_lost = 0
    with ThreadPoolExecutor(endpoint.concurrency) as pool:
        asked = {pool.submit(_ask, item, endpoint, max_tokens, prompt, key): item for item in items}
        try:
            for future in as_completed(asked):
                found = _result(future)
                if isinstance(found, Answer):
                    folder.append(found)
                    progress.show(folder.num_answered)
                    num_lost = 0
                    continue
                failed[asked[future].id] = found.reason
                num_lost += not future.cancelled()
                if num_lost == DEAD:
                    for other in asked:
                        other.cancel()
        except PipelineError:
            pool.shutdown(cancel_futures=True)
            raise
    if not failed:
        progress.close()
    return failed


def _result(future: Future[Answer | Failed]) -> Answer | Failed:
    return Failed("not asked any more") if future.cancelled() else future.result()


def _key(endpoint: EndpointConfig) -> str:
    if endpoint.key_from is None:
        return ""
    key = os.environ.get(endpoint.key_from, "")
    if not key:
        msg = f"{endpoint.name}: the environment variable {endpoint.key_from} (key_from) is not set"
        raise PipelineError(msg)
    return key


def _ask(
    item: Item, endpoint: EndpointConfig, max_tokens: int, prompt: Prompt, key: str
) -> Answer | Failed:
    """Ask until there is an answer, or a refusal, or no attempt is left."""
    if item.error:
        return _wrong(item, item.error)
    try:
        body = _body(item, endpoint, max_tokens)
    except UnreadableAudioError as error:
        return _wrong(item, str(error))
    found: Answer | Failed = Failed("never asked")
    for attempt in range(endpoint.attempts):
        if isinstance(found, Failed) and attempt:
            wait_s = found.wait_s or endpoint.retry_wait_s * 2 ** (attempt - 1)
            time.sleep(min(LONGEST_WAIT_S, wait_s))
        try:
            found = _attempt(item, endpoint, body, prompt, key)
        except requests.RequestException as error:
            found = Failed(f"{type(error).__name__} within {endpoint.timeout_s:g} s")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            found = Failed(f"its answer is no chat completion: {type(error).__name__} {error}")
        if isinstance(found, Answer):
            return found
    return found


def _attempt(
    item: Item, endpoint: EndpointConfig, body: dict[str, Any], prompt: Prompt, key: str
) -> Answer | Failed:
    response = requests.post(
        f"{endpoint.url.rstrip('/')}/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=(CONNECT_S, endpoint.timeout_s),
    )
    status = response.status_code
    told = response.text[:SHOWN].replace(key, "***") if key else response.text[:SHOWN]
    if status in WRONG_SETTINGS:
        msg = (
            f"{endpoint.name}: {endpoint.url} answers {status}: {told}. Check its `url`, its "
            "`model` and the key that `key_from` names"
        )
        raise PipelineError(msg)
    if status == OK:
        return _answer(item, json.loads(response.text), prompt)
    if 400 <= status < 500 and status != TOO_MANY:
        return _wrong(item, f"{REFUSED} ({status}): {told}")
    return Failed(f"it answered {status}: {told}", _retry_after_s(response.headers))


def _wrong(item: Item, reason: str) -> Answer:
    return Answer(item.id, "", None, finished=False, error=reason)


def _answer(item: Item, found: Any, prompt: Prompt) -> Answer:  # noqa: ANN401  decoded JSON
    choice = found["choices"][0]
    text = choice["message"].get("content")
    refusal = choice["message"].get("refusal") or ""
    if refusal or choice.get("finish_reason") == "content_filter":
        return _wrong(item, f"{REFUSED}: {(refusal or 'content filter')[:SHOWN]}")
    if not isinstance(text, str):
        msg = f"content is {type(text).__name__}"
        raise TypeError(msg)
    extracted = extract_answer(text, prompt, item.choices)
    return Answer(
        item.id,
        text,
        extracted.answer,
        num_tokens=int((found.get("usage") or {}).get("completion_tokens") or 0),
        finished=choice.get("finish_reason") != "length",
        rule=extracted.rule,
    )


def _body(item: Item, endpoint: EndpointConfig, max_tokens: int) -> dict[str, Any]:
    content = io.BytesIO()
    samples = read_audio(item.clip) if item.clip else silence(item.silence_s)
    soundfile.write(content, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    data = base64.b64encode(content.getvalue()).decode()
    if endpoint.audio_part == "input_audio":
        audio: dict[str, Any] = {"data": data, "format": "wav"}
    else:
        audio = {"url": f"data:audio/wav;base64,{data}"}
    system = [] if item.system is None else [{"role": "system", "content": item.system}]
    parts = [{"type": endpoint.audio_part, endpoint.audio_part: audio}]
    parts.append({"type": "text", "text": item.text})
    asked = {"model": endpoint.model, "max_tokens": max_tokens, **endpoint.parameters}
    return {**asked, "messages": [*system, {"role": "user", "content": parts}]}


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:  # none, or a date
        return None


if __name__ == "__main__":
    sys.exit(run_command(sys.argv[1:], "RUN.json", lambda path: answer_all(read_run(path))))
