"""README.md names every command, option and variable that there is, and none besides."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import click
import pytest

from lucid.cli import passphrase, secrets
from lucid.cli.main import COMMANDS, cli
from lucid.mount.options import KNOWN

README = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
OF_ALL = {"--help", "--json", "--passphrase-file", "-h"}
"""Told once for all commands."""


def section(title: str) -> str:
    found = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, title
    return found


def options_of(command: click.Command) -> set[str]:
    options = {name for parameter in command.params for name in parameter.opts}
    return {name for name in options if name.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_and_its_options_are_told(name: str) -> None:
    command = import_module(f"lucid.cli.{name}").command
    after = re.split(rf"\*\*`lucid {name}(?=[ `])", section("Commands"))[1]
    told = after.partition("\n**`lucid ")[0]
    assert told
    items = re.findall(r"^- (.*?)(?=[:,])", told, re.MULTILINE)
    named = {option for item in items for option in re.findall(r"(?<![-\w])--?[a-z][a-z-]*", item)}
    assert named == options_of(command) - OF_ALL
    synopsis = section("Synopsis")
    assert re.search(rf"^    lucid {name}( |$)", synopsis, re.MULTILINE)
    for option in named:
        assert option in synopsis


def test_what_is_told_for_all_is_so() -> None:
    told = section("Commands")
    for option in (*OF_ALL - {"-h", "--help"}, *options_of(cli) - {"--help", "--version"}):
        assert option in told
    with_json = {
        name
        for name in COMMANDS
        if "--json" in options_of(import_module(f"lucid.cli.{name}").command)
    }
    sentence = re.search(r"first line of the file[^.]*\. (.*?) take `--json`", told, re.DOTALL)
    assert sentence
    assert set(re.findall(r"`(\w+)`", sentence[1])) == with_json


def test_mount_options_and_variables_are_told() -> None:
    for option in (*KNOWN, "ro"):
        assert f"`{option}`" in section("Commands")
    for variable in (secrets.ENVIRONMENT, passphrase.NEW_ENVIRONMENT, "LUCID_DEBUG"):
        assert f"`{variable}`" in section("Environment")
