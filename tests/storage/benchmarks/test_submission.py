import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from storage.benchmarks.submission import submit
from storage.errors import PipelineError


class Service(HTTPServer):
    """A stand-in for MMAU's Gradio application."""

    calls: list[tuple[str, str, bytes]]
    broken: str = ""


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append(("POST", self.path, body))
        answers = {
            "/gradio_api/upload": ["gradio/1/submission.json"],
            "/gradio_api/call/predict": {"event_id": "abc"},
        }
        self._answer(json.dumps(answers[self.path]).encode())

    def do_GET(self) -> None:
        self.server.calls.append(("GET", self.path, b""))
        report = json.dumps(["Total Accuracy: 50.00% (1/2)"])
        self._answer(
            f"event: heartbeat\ndata: null\n\nevent: complete\ndata: {report}\n\n".encode()
        )

    def _answer(self, content: bytes) -> None:
        self.send_response(500 if self.server.broken == self.path else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service(("127.0.0.1", 0), Handler)
    server.calls = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(service: Service) -> str:
    return f"http://127.0.0.1:{service.server_port}/"


def submission(folder: Path, *ids: str) -> Path:
    path = folder / "submission.json"
    path.write_text(json.dumps([{"id": name, "model_output": "x"} for name in ids]))
    return path


def test_after_a_yes_the_file_is_sent_once_and_the_report_comes_back(tmp_path, service) -> None:
    asked: list[str] = []

    def yes(question: str) -> bool:
        asked.append(question)
        return True

    path = submission(tmp_path, "a", "b")
    report = submit(path, address(service), num_questions=2, ask=yes)
    assert report == "Total Accuracy: 50.00% (1/2)"
    assert [call[:2] for call in service.calls] == [
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/call/predict"),
        ("GET", "/gradio_api/call/predict/abc"),
    ]
    assert b'"model_output": "x"' in service.calls[0][2]
    assert json.loads(service.calls[1][2])["data"][0]["path"] == "gradio/1/submission.json"
    assert "2 predictions" in asked[0]
    assert address(service) in asked[0]


def test_without_a_yes_nothing_is_sent(tmp_path, service) -> None:
    path = submission(tmp_path, "a", "b")
    with pytest.raises(PipelineError, match="nothing was sent"):
        submit(path, address(service), num_questions=2, ask=lambda _question: False)
    assert service.calls == []


@pytest.mark.parametrize("broken", ["/gradio_api/upload", "/gradio_api/call/predict/abc"])
def test_a_broken_call_is_not_repeated(tmp_path, service, broken) -> None:
    service.broken = broken
    path = submission(tmp_path, "a", "b")
    with pytest.raises(PipelineError, match=r"gave no report.*not sent again by itself"):
        submit(path, address(service), num_questions=2, ask=lambda _question: True)
    assert [call[1] for call in service.calls].count(broken) == 1


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", "a"], "1 ids come twice: a"), (["a"], "holds 1 predictions, expected 2")],
)
def test_a_file_that_is_not_whole_is_refused_before_anybody_is_asked(
    tmp_path, ids, message
) -> None:
    with pytest.raises(PipelineError, match=message):
        submit(submission(tmp_path, *ids), "http://127.0.0.1:9", num_questions=2, ask=pytest.fail)
