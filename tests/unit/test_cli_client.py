# SPDX-License-Identifier: Apache-2.0
"""The client of the control socket against a fake daemon: answers, errors, and no daemon at all."""

import os
import select
import socket
import threading
from pathlib import Path

import pytest

from evener import errors
from evener.api.client import Client
from evener.instance import Instance
from tests.support.fake_daemon import Answer, FakeDaemon


def ask(tmp_path: Path, answer: Answer, path: str = "GET /v1/status") -> Client:
    """A client of a daemon that gives one answer, which stays until the test ends."""
    daemon = FakeDaemon(tmp_path / "s", {path: answer})
    daemon.__enter__()
    _open.append(daemon)
    return Client(daemon.path, timeout_s=5)


_open: list[FakeDaemon] = []


@pytest.fixture(autouse=True)
def _closed() -> object:
    yield
    while _open:
        _open.pop().__exit__(None, None, None)


def test_queries_and_commands(tmp_path: Path) -> None:
    answers = {
        "GET /v1/status": (200, {"version": 1, "generation": 3}),
        "GET /v1/flows": (200, {"version": 1, "rows": [{"client": "x"}]}),
        "POST /v1/apply": (200, {"version": 1, "generation": 4, "changes": ["a"]}),
        "POST /v1/diff": (200, {"version": 1, "changes": ["b"], "refused": []}),
        "POST /v1/reload": (200, {"version": 1, "generation": 5, "changes": []}),
        "POST /v1/explain": (200, {"version": 1, "plan": {"slot": 1}}),
    }
    with FakeDaemon(tmp_path / "s", answers) as daemon:
        client = Client(daemon.path)
        assert client.status()["generation"] == 3
        assert client.rows("flows", limit=5, client="10.0.0.1:1") == [{"client": "x"}]
        assert client.apply("text", "file") == {"version": 1, "generation": 4, "changes": ["a"]}
        assert client.diff("text", "file")["changes"] == ["b"]
        assert client.reload()["generation"] == 5
        assert client.explain("a", "b") == {"slot": 1}
        assert daemon.asked == [
            ("GET", "/v1/status", None),
            ("GET", "/v1/flows?limit=5&client=10.0.0.1%3A1", None),
            ("POST", "/v1/apply", {"text": "text", "source": "file"}),
            ("POST", "/v1/diff", {"text": "text", "source": "file"}),
            ("POST", "/v1/reload", {}),
            ("POST", "/v1/explain", {"client": "a", "listen": "b"}),
        ]


@pytest.mark.parametrize("kind", errors.by_exit_code().values())
def test_an_error_comes_back_as_its_class(tmp_path: Path, kind: type[errors.EvenerError]) -> None:
    if kind is errors.ConfigError:
        return
    told = {"what": "it is so", "where": "here", "do": "this", "exit_code": kind.exit_code}
    client = ask(tmp_path, (409, {"version": 1, "error": told}))
    with pytest.raises(errors.EvenerError) as caught:
        client.status()
    assert type(caught.value) is kind
    assert str(caught.value) == "it is so (here): this"


def test_a_wrong_configuration_comes_back_with_its_problems(tmp_path: Path) -> None:
    problem = {"line": 2, "path": "a.b", "message": "m", "allowed": "n"}
    told = {
        "what": "1 problem", "where": "f.toml", "do": "", "exit_code": 3, "source": "f.toml",
        "problems": [{**problem, "kind": "unavailable", "column": 0}],
    }  # fmt: skip
    client = ask(tmp_path, (422, {"version": 1, "error": told}), "POST /v1/apply")
    with pytest.raises(errors.ConfigError) as caught:
        client.apply("", "f.toml")
    kind = errors.ProblemKind.UNAVAILABLE
    assert caught.value.problems == [errors.Problem(2, "a.b", "m", "n", kind)]
    assert str(caught.value).endswith("\n  f.toml:2: a.b: m; available: n")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((200, {"version": 2}), "the daemon speaks version 2 of the interface, this command 1"),
        ((200, b"hello"), "what answers is not evener: 200 OK"),
        ((200, [1, 2]), "what answers is not evener"),
        ((500, {"version": 1}), "the daemon answered 500 without saying why"),
        ((502, b"<html>"), "what answers is not evener: 502 Bad Gateway"),
    ],
)
def test_answers_that_cannot_be_used(tmp_path: Path, answer: Answer, message: str) -> None:
    with pytest.raises(errors.DaemonError) as caught:
        ask(tmp_path, answer).status()
    assert message in str(caught.value)


def test_no_daemon(tmp_path: Path) -> None:
    missing = Client(tmp_path / "none")
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(tmp_path / "left"))
    left_over.close()
    for client in (missing, Client(tmp_path / "left")):
        with pytest.raises(errors.DaemonError) as caught:
            client.status()
        assert str(caught.value) == (
            f"the daemon is not running in this network namespace ({client.path}): "
            "start it with `evener run CONFIG`"
        )


def test_a_daemon_that_ends_before_it_has_read_the_question(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def end() -> None:
        select.select([listener], [], [])
        listener.close()

    ending = threading.Thread(target=end)
    ending.start()
    with pytest.raises(errors.DaemonError, match="the daemon is not running"):
        Client(tmp_path / "s").status()
    ending.join()


def test_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        with pytest.raises(errors.DaemonError, match=r"did not answer within 0\.05 s"):
            Client(tmp_path / "mute", timeout_s=0.05).status()


def test_a_socket_of_others(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may talk to every socket")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(errors.DaemonError, match="this user may not talk to the daemon"):
        Client(tmp_path / "closed" / "s").status()


def test_without_a_path_it_is_this_namespaces_daemon() -> None:
    assert Client().path == Instance.here().socket


def test_trace_gives_lines_until_the_daemon_ends(tmp_path: Path) -> None:
    lines = [{"version": 1, "trace": "begin"}, {"verdict": "pass"}, {"lost": 3}]
    client = ask(tmp_path, (200, lines), "GET /v1/trace")
    stream = client.trace(client="10.0.0.1")
    assert [next(stream) for _ in lines] == lines
    with pytest.raises(errors.DaemonError, match="the daemon ended the trace"):
        next(stream)
    assert _open[0].asked == [("GET", "/v1/trace?client=10.0.0.1", None)]


def test_a_trace_ends_when_the_client_is_closed(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    client = Client(tmp_path / "s", timeout_s=5)
    got, began = [], threading.Event()

    def follow() -> None:
        for line in client.trace():
            got.append(line)
            began.set()

    thread = threading.Thread(target=follow)
    thread.start()
    with listener, listener.accept()[0] as connection:
        connection.recv(4096)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b'f\r\n{"trace": "b"}\n\r\n')
        assert began.wait(5)
        client.close()
        thread.join(5)
    assert not thread.is_alive()
    assert got == [{"trace": "b"}]


def test_a_filter_that_the_daemon_refuses(tmp_path: Path) -> None:
    told = {"what": "no service", "where": "", "do": "", "exit_code": 1}
    client = ask(tmp_path, (409, {"version": 1, "error": told}), "GET /v1/trace")
    with pytest.raises(errors.EvenerError, match="no service"):
        next(iter(client.trace(service="wbe")))
