"""`lucid hub`: the server through which devices hear of changes at once."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lucid.cli.logs import FORM
from lucid.cli.terminal import examples
from lucid.errors import LocalError, UsageError

if TYPE_CHECKING:
    from lucid.hub.server import Hub

__all__ = ["TOKEN_ENVIRONMENT", "command"]

TOKEN_ENVIRONMENT = "LUCID_WEBHOOK_TOKEN"
PORT = 8470


@click.command(
    "hub",
    epilog=examples(
        "lucid hub",
        "lucid hub --listen 0.0.0.0:443 --tls-cert hub.pem --tls-key hub.key",
        "lucid mount s3://bucket/team ~/team --hub wss://hub.example.org",
    ),
)
@click.option(
    "--listen",
    default=f"127.0.0.1:{PORT}",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes a free one.",
)
@click.option(
    "--tls-cert",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Certificate with its chain, PEM. Without it a proxy in front should speak TLS.",
)
@click.option(
    "--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Its private key, PEM."
)
@click.option(
    "--redis",
    metavar="URL",
    help="Share rooms with other hub processes through Redis or Valkey: redis://host:6379/0.",
)
@click.option(
    "--room",
    "rooms",
    multiple=True,
    metavar="ROOM",
    help="Serve this room only; may be given again. lucid status --json shows a drive's.",
)
@click.option(
    "--max-rooms", type=click.IntRange(1), metavar="N", help="Rooms at once.  [default: 1000]"
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    metavar="N",
    help="Devices in all.  [default: 4096]",
)
@click.option(
    "--max-per-room",
    type=click.IntRange(1),
    metavar="N",
    help="Devices of one room.  [default: 256]",
)
@click.option(
    "--max-per-address",
    type=click.IntRange(1),
    metavar="N",
    help="Devices behind one address.  [default: 256]",
)
def command(
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    redis: str | None,
    rooms: tuple[str, ...],
    max_rooms: int | None,
    max_connections: int | None,
    max_per_room: int | None,
    max_per_address: int | None,
) -> int:
    """Run a hub: it tells the devices of a filespace when one of them has changed something.

    It learns no names, contents or keys, keeps nothing, and can be stopped at any time: without it
    changes are heard of a little later. Ends at Ctrl-C or SIGTERM.
    """
    from lucid.hub.limits import Limits
    from lucid.hub.server import Hub

    wanted = {
        "rooms": max_rooms,
        "connections": max_connections,
        "per_room": max_per_room,
        "per_address": max_per_address,
    }
    limits = replace(Limits(), **{name: n for name, n in wanted.items() if n is not None})
    # One descriptor a device, and shells give 1,024.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    logging.basicConfig(level=logging.INFO, format=FORM)
    logging.getLogger("websockets").setLevel(logging.WARNING)  # it tells of every connection
    hub = Hub(
        limits,
        webhook_token=os.environ.get(TOKEN_ENVIRONMENT, ""),
        rooms_allowed=frozenset(map(_room, rooms)),
    )
    asyncio.run(_run(hub, *_place(listen), _tls(tls_cert, tls_key), redis))
    return 0


async def _run(
    hub: Hub, host: str, port: int, tls: ssl.SSLContext | None, redis: str | None
) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    backplane = None
    if redis is not None:
        from lucid.hub.backplane import RedisBackplane

        backplane = RedisBackplane(redis, hub.rooms, hub.metrics)
        hub.use(backplane)
    try:
        host, port = await hub.start(host, port, tls)
    except OSError as error:
        raise LocalError(f"The hub cannot listen on {host}:{port}: {_reason(error)}.") from None
    scheme = "ws" if tls is None else "wss"
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Listening on {scheme}://{shown}:{port}")
    try:
        await ended.wait()
    finally:
        await hub.close()
        if backplane is not None:
            await backplane.close()


def _place(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"'{listen}' is no place to listen; write 127.0.0.1:{PORT}.")
    return host.strip("[]"), int(port)


def _room(text: str) -> bytes:
    try:
        room = bytes.fromhex(text)
    except ValueError:
        room = b""
    if len(room) != 32:
        raise UsageError(f"'{text}' is no room; it has 64 hexadecimal digits.")
    return room


def _reason(error: OSError) -> str:
    """Without the number of the error and what a library says around it."""
    if isinstance(error, ssl.SSLError):
        return "it is no PEM file with a certificate, or the key is another one's"
    if isinstance(error, socket.gaierror):
        return "this address is not known"
    return os.strerror(error.errno) if error.errno else error.strerror or str(error)


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None:
        raise UsageError("Give --tls-cert as well as --tls-key.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise LocalError(f"The certificate {cert} cannot be used: {_reason(error)}.") from None
    return context
