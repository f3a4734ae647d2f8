import http.client
import socket
import struct
from urllib.parse import urlsplit

import pytest

from reports.server import find_report, serve
from storage.errors import PipelineError


@pytest.fixture
def folder(tmp_path):
    site = tmp_path / "site"
    (site / "audio").mkdir(parents=True)
    (site / "index.html").write_text("<h1>report</h1>")
    (site / "audio" / "00000.wav").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "secret.txt").write_text("secret")
    (site / "link.txt").symlink_to(tmp_path / "secret.txt")
    return site


def ask(address: str, path: str, method: str = "GET", **headers: str):
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_a_folders_index_is_served(folder):
    with serve(folder) as address:
        response, body = ask(address, "/")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert body == b"<h1>report</h1>"


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-1", 0, 1), ("bytes=10000-", 10000, 10239), ("bytes=-40", 10200, 10239)],
)
def test_a_range_is_answered_with_that_part(folder, header, first, last):
    with serve(folder) as address:
        response, body = ask(address, "/audio/00000.wav", Range=header)
    assert response.status == 206
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/10240"
    assert body == (bytes(range(256)) * 40)[first : last + 1]


def test_a_range_after_the_end_is_refused_and_an_odd_one_ignored(folder):
    with serve(folder) as address:
        assert ask(address, "/audio/00000.wav", Range="bytes=10240-")[0].status == 416
        assert ask(address, "/audio/00000.wav", Range="lines=1-2")[0].status == 200


def test_head_says_how_long_a_file_is_without_sending_it(folder):
    with serve(folder) as address:
        response, body = ask(address, "/audio/00000.wav", "HEAD")
    assert response.headers["Content-Length"] == "10240"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert body == b""


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/audio/..%2f..%2fsecret.txt",
        "/link.txt",
        "/..%5csecret.txt",
        "//etc/passwd",
        "/a%00b",
        "/audio",
        "/missing.html",
        "/" + "x" * 5000,
    ],
)
def test_nothing_outside_the_folder_is_served(folder, path):
    with serve(folder) as address:
        response, body = ask(address, path)
    assert response.status == 404
    assert b"secret" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(folder, method):
    with serve(folder) as address:
        assert ask(address, "/index.html", method)[0].status == 405


def test_a_port_in_use_is_said_with_what_to_do(folder):
    with serve(folder) as address:
        port = urlsplit(address).port
        with (
            pytest.raises(PipelineError, match=rf"port {port} of 127\.0\.0\.1 is in use; stop"),
            serve(folder, port=port),
        ):
            pass


def test_a_port_is_free_again_after_the_block(folder):
    with serve(folder) as address:
        port = urlsplit(address).port
    with serve(folder, port=port) as again:
        assert ask(again, "/")[0].status == 200


def test_a_range_of_an_empty_file_cannot_be_satisfied(folder):
    (folder / "empty.wav").touch()
    with serve(folder) as address:
        assert ask(address, "/empty.wav", Range="bytes=0-1")[0].status == 416


def test_a_part_of_a_file_that_was_replaced_is_sent_whole(folder):
    with serve(folder) as address:
        etag = ask(address, "/audio/00000.wav", "HEAD")[0].headers["ETag"]
        part = {"Range": "bytes=0-1", "If-Range": etag}
        assert ask(address, "/audio/00000.wav", **part)[0].status == 206
        (folder / "audio" / "00000.wav").write_bytes(b"another")
        response, body = ask(address, "/audio/00000.wav", **part)
    assert (response.status, body) == (200, b"another")


def test_a_range_of_five_thousand_digits_and_a_reset_print_nothing(folder, capfd):
    """Both printed a traceback into the pipeline's terminal."""
    (folder / "large.wav").write_bytes(bytes(1 << 22))
    with serve(folder) as address:
        response, _ = ask(address, "/audio/00000.wav", Range=f"bytes={'9' * 5000}-")
        assert response.status in {400, 416}
        parts = urlsplit(address)
        with socket.create_connection((parts.hostname, parts.port)) as reset:
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            reset.sendall(b"GET /large.wav HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            reset.recv(1000)
        assert ask(address, "/")[0].status == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["attacker.example", "127.0.0.1.attacker.example", ""])
def test_a_page_of_another_site_that_points_its_name_here_reads_nothing(folder, name):
    with serve(folder) as address:
        response, body = ask(address, "/", Host=name)
        port = urlsplit(address).port
        assert ask(address, "/", Host=f"localhost:{port}")[0].status == 200  # an SSH tunnel
    assert response.status == 400
    assert b"report" not in body


@pytest.fixture
def workspace(tmp_path):
    for experiment in ("paper", "think"):
        (tmp_path / experiment / "site" / "data").mkdir(parents=True)
        (tmp_path / experiment / "site" / "index.html").write_text(f"report of {experiment}")
        (tmp_path / experiment / "site" / "data" / "x.json").write_text("{}")
    (tmp_path / "paper" / "train.jsonl").write_text("secret")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "-HG3Omg_89c_30.wav").write_bytes(b"RIFF")
    (tmp_path / "clips" / "away.wav").symlink_to(tmp_path / "ledger.sqlite")
    (tmp_path / "ledger.sqlite").write_text("secret")
    return tmp_path


def test_the_reports_of_a_workspace_are_listed_and_served_by_experiment(workspace):
    with serve(workspace, find=find_report) as address:
        _, listed = ask(address, "/")
        assert b'<a href="/paper/">paper</a>' in listed
        assert b'<a href="/think/">think</a>' in listed
        assert b"clips" not in listed
        assert ask(address, "/think/")[1] == b"report of think"
        assert ask(address, "/paper/index.html")[1] == b"report of paper"
        assert ask(address, "/paper/data/x.json")[1] == b"{}"
        assert ask(address, "/paper")[1] == listed
        assert ask(address, "/clips/-HG3Omg_89c_30.wav")[1] == b"RIFF"


@pytest.mark.parametrize(
    "path",
    [
        "/ledger.sqlite",
        "/clips/",
        "/clips/away.wav",
        "/clips/../paper/train.jsonl",
        "/clips-2s/none.wav",
        "/media/-HG3Omg_89c_30.wav",
        "/paper/train.jsonl",
        "/paper/../train.jsonl",
        "/paper/%2e%2e/train.jsonl",
        "/paper/../../ledger.sqlite",
        "/../ledger.sqlite",
        "/none/",
    ],
)
def test_of_a_workspace_nothing_but_the_reports_is_served(workspace, path):
    with serve(workspace, find=find_report) as address:
        assert ask(address, path)[0].status == 404


def test_a_workspace_without_a_report_says_so(tmp_path):
    with serve(tmp_path, find=find_report) as address:
        assert b"None yet" in ask(address, "/")[1]
