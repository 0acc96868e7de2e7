"""`lucid hub` as people run it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Lucid

CERTIFICATE = Path(__file__).parents[1] / "contract" / "localhost.pem"
ROOM = "ab" * 32


@contextmanager
def running(lucid: Lucid, *options: object, **environment: str) -> Iterator[str]:
    """A hub's URL, as it prints it."""
    process = subprocess.Popen(
        lucid.command("hub", *options), env=lucid.environment | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("Listening on "), process.communicate()
        yield line.split()[-1]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, "Traceback" in errors) == (0, False)
    finally:
        process.kill()
        process.communicate()


def test_health_and_metrics(lucid: Lucid) -> None:
    with running(lucid, "--listen", "127.0.0.1:0") as url:
        base = url.replace("ws://", "http://")
        with urllib.request.urlopen(f"{base}/health", timeout=10) as answer:
            assert answer.read() == b"ok\n"
        with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
            assert b"lucid_hub_connections" in answer.read()


def test_with_tls(lucid: Lucid) -> None:
    options = ("--listen", "127.0.0.1:0", "--tls-cert", CERTIFICATE)
    with running(lucid, *options) as url:
        assert url.startswith("wss://")
        port = url.rpartition(":")[2]
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        place = f"https://localhost:{port}/health"
        with urllib.request.urlopen(place, timeout=10, context=context) as answer:
            assert answer.status == 200


def test_the_token_of_webhooks_is_taken_from_the_environment(lucid: Lucid) -> None:
    with running(lucid, "--listen", "127.0.0.1:0", LUCID_WEBHOOK_TOKEN="open") as url:
        place = url.replace("ws://", "http://") + f"/webhook/{ROOM}"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(place, json.dumps({}).encode(), timeout=10)
        with urllib.request.urlopen(f"{place}?token=open", b"{}", timeout=10) as answer:
            assert answer.status == 204


def test_what_cannot_be(lucid: Lucid, tmp_path: Path) -> None:
    assert "no place to listen" in lucid.error(2, "hub", "--listen", "nowhere")
    assert "no place to listen" in lucid.error(2, "hub", "--listen", "host:99999")
    assert "is no room" in lucid.error(2, "hub", "--room", "abc")
    assert "--tls-cert as well" in lucid.error(2, "hub", "--tls-key", CERTIFICATE)
    assert "cannot be used" in lucid.error(12, "hub", "--tls-cert", os.devnull)
    assert "is no address of Redis" in lucid.error(2, "hub", "--redis", "http://x")
    assert "nofile cannot be used: No such file" in lucid.error(12, "hub", "--tls-cert", "nofile")
    assert "cannot listen" in lucid.error(12, "hub", "--listen", "203.0.113.1:1")
    mount = ("mount", f"file://{tmp_path}/none", tmp_path)
    assert "is no hub" in lucid.error(2, *mount, "--hub", "https://x")
