"""Models behind an endpoint, asked on a loopback server that misbehaves."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.config import EndpointConfig
from model.infer.jobs import InferenceJob, InferenceRun
from model.prompt import PROMPTS
from model.run_endpoint import answer_all
from storage.benchmarks.parse import write_questions
from storage.errors import PipelineError
from storage.jsonl import read_jsonl
from storage.manifest import file_digest
from storage.records.question import Question
from tests.storage.records.made_run import make_run

KEY = "sk-of-nobody"
GOOD = {"message": {"content": "<answer>rain</answer>"}, "finish_reason": "stop"}
CUT = {"message": {"content": "<answer>ra"}, "finish_reason": "length"}
REFUSED = {"message": {"content": None, "refusal": "I cannot hear that"}, "finish_reason": "stop"}


class Endpoint(ThreadingHTTPServer):
    """Answers each question as its script says, the last word again and again."""

    scripts: dict[str, list[str]]
    asked: list[dict]
    keys: set[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        self.server.keys.add(self.headers.get("Authorization"))
        text = body["messages"][-1]["content"][-1]["text"]
        script = self.server.scripts[text.split("?")[0]]
        word = script.pop(0) if len(script) > 1 else script[0]
        if word == "hang":
            time.sleep(1.5)
        elif word.isdecimal():
            self._say(int(word), f'{{"error": "{KEY} is busy"}}')
        elif word == "broken":
            self._say(200, '{"choices": [')
        elif word == "connection":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices"')
        else:
            choice = {"good": GOOD, "cut": CUT, "refusal": REFUSED}[word]
            usage = {"completion_tokens": 7}
            self._say(200, json.dumps({"choices": [choice], "usage": usage}))

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Endpoint]:
    with Endpoint(("127.0.0.1", 0), Handler) as found:
        found.scripts, found.asked, found.keys = {}, [], set()
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def run_of(server: Endpoint, folder: Path, scripts: dict[str, list[str]], **endpoint):
    """Ask the scripted questions; each names itself in its text."""
    server.scripts = {name: list(words) for name, words in scripts.items()}
    questions = [
        Question(name, (f"{name}.wav",), f"{name}?", ("snow", "rain"), "rain", "sound")
        for name in scripts
    ]
    (folder / "audio").mkdir(exist_ok=True)
    for name in scripts:
        soundfile.write(folder / "audio" / f"{name}.wav", np.zeros(22_050), 22_050)
    write_questions(folder / "questions.json", questions)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    settings = {"name": "there", "kind": "endpoint", "url": url, "model": "m", "concurrency": 2}
    settings |= {"retry_wait_s": 0.01, "timeout_s": 0.5, "attempts": 3}
    job = InferenceJob(
        run=make_run(
            prompt=PROMPTS["audiomcq"],
            training=None,
            questions_sha256=file_digest(folder / "questions.json"),
            num_questions=len(questions),
            decoding={"max_new_tokens": 9, "batch_size": 1, "precision": "theirs"},
        ),
        questions=folder / "questions.json",
        audio=folder / "audio",
        output=folder / "out",
        endpoint=EndpointConfig.model_validate(settings | endpoint),
    )
    return InferenceRun(jobs=(job,))


def answers(folder: Path) -> dict[str, dict]:
    return {line["id"]: line for line in read_jsonl(folder / "out/answers.jsonl")}


def test_what_passes_is_tried_again_and_what_is_refused_is_wrong(
    server, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    scripts = {
        "a": ["429", "good"],
        "b": ["500", "broken", "good"],
        "c": ["hang", "good"],
        "d": ["connection", "good"],
        "e": ["refusal"],
        "f": ["400"],
        "g": ["cut"],
    }
    answer_all(run_of(server, tmp_path, scripts, key_from="MY_KEY"))
    found = answers(tmp_path)
    assert [found[name]["answer"] for name in "abcd"] == ["rain"] * 4
    assert found["a"]["rule"] == "first-answer"
    assert found["a"]["num_tokens"] == 7
    assert found["e"]["error"] == "refused: I cannot hear that"
    assert found["f"]["error"] == 'refused (400): {"error": "*** is busy"}'
    assert found["g"]["finished"] is False
    assert "2 refused, count as wrong" in capsys.readouterr().out
    assert server.keys == {f"Bearer {KEY}"}
    written = [path.read_text() for path in tmp_path.rglob("*.json*")]
    assert not any(KEY in text for text in written)


def test_the_request_is_openais_with_the_clip_before_the_text(server, tmp_path) -> None:
    answer_all(run_of(server, tmp_path, {"a": ["good"]}))
    (body,) = server.asked
    assert {name: body[name] for name in ("model", "max_tokens", "temperature", "seed")} == {
        "model": "m",
        "max_tokens": 9,
        "temperature": 0,
        "seed": 0,
    }
    system, user = body["messages"]
    assert system == {"role": "system", "content": PROMPTS["audiomcq"].system}
    audio, text = user["content"]
    assert audio["type"] == "input_audio"
    assert audio["input_audio"]["format"] == "wav"
    assert len(audio["input_audio"]["data"]) == pytest.approx(4 / 3 * 32_044, abs=4)  # 1 s, 16 kHz
    assert text["text"].startswith("a? Please choose the answer")


def test_a_question_that_fails_to_the_last_is_no_answer_and_is_asked_again_next_time(
    server, tmp_path
) -> None:
    scripts = {"a": ["good"], "b": ["500"], "c": ["good"]}
    with pytest.raises(PipelineError, match=r"answered 2 of 3 .* b\. b: it answered 500"):
        answer_all(run_of(server, tmp_path, scripts))
    assert set(answers(tmp_path)) == {"a", "c"}
    num_asked = len(server.asked)
    answer_all(run_of(server, tmp_path, scripts | {"b": ["good"]}))
    assert set(answers(tmp_path)) == {"a", "b", "c"}
    assert len(server.asked) == num_asked + 1


def test_a_dead_endpoint_is_not_asked_everything(server, tmp_path) -> None:
    scripts = {f"q{number}": ["500"] for number in range(30)}
    with pytest.raises(PipelineError, match="answered 0 of 30 questions"):
        answer_all(run_of(server, tmp_path, scripts, attempts=1))
    assert len(server.asked) < 10


@pytest.mark.parametrize(
    ("status", "told"), [("401", "the key that `key_from` names"), ("404", "Check its `url`")]
)
def test_wrong_settings_stop_at_once(server, tmp_path, status, told) -> None:
    with pytest.raises(PipelineError, match=told):
        answer_all(run_of(server, tmp_path, {f"q{n}": [status] for n in range(9)}))
    assert len(server.asked) < 9


def test_a_key_that_is_not_set_is_said_before_anything_is_asked(server, tmp_path) -> None:
    with pytest.raises(PipelineError, match="variable NO_SUCH_KEY"):
        answer_all(run_of(server, tmp_path, {"a": ["good"]}, key_from="NO_SUCH_KEY"))
    assert not server.asked
