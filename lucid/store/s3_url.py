"""`s3://bucket/prefix?endpoint=...`: where a filespace lies in S3, as the user writes it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from lucid.errors import ConfigError, UsageError
from lucid.store.base import check_key

__all__ = ["S3Location"]

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_OPTIONS = frozenset({"endpoint", "region", "profile", "addressing"})
_ADDRESSING = frozenset({"path", "virtual", "auto"})


@dataclass(frozen=True)
class S3Location:
    """A bucket and a prefix in it. What is None is left to boto3's own rules and variables."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    addressing: str | None = None

    @classmethod
    def parse(cls, url: str) -> S3Location:
        """Read a URL. Raises ConfigError; keys and secrets have no place in it."""
        parts = urlsplit(url)
        if parts.scheme != "s3":
            raise ConfigError(f"{url} does not begin with s3://. Write s3://bucket/prefix.")
        if "@" in parts.netloc:
            # The text holds a secret, so the sentence leaves it out.
            raise ConfigError(
                "An s3:// URL takes no credentials. Put them into AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or into a profile."
            )
        if not _BUCKET.fullmatch(parts.netloc):
            raise ConfigError(
                f"'{parts.netloc}' cannot be the name of a bucket. Write s3://bucket/prefix."
            )
        prefix = parts.path.strip("/")
        if prefix:
            _check_prefix(prefix)
        return cls(parts.netloc, prefix, **_options(parts.query))

    @property
    def url(self) -> str:
        """The place without options: what errors and reports show."""
        return f"s3://{self.bucket}/{self.prefix}" if self.prefix else f"s3://{self.bucket}"

    def name_of(self, key: str) -> str:
        """The name of an object in the bucket."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def key_of(self, name: str) -> str:
        """The key of a name that lies below the prefix."""
        return name[len(self.prefix) + 1 :] if self.prefix else name


def _check_prefix(prefix: str) -> None:
    try:
        check_key(prefix)
    except UsageError:
        raise ConfigError(
            f"The prefix {prefix} is not allowed. It may hold letters, digits, '.', '_', '-' and "
            "'/', and no part of it may begin with a dot."
        ) from None


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS or not value or name in options:
            raise ConfigError(
                f"An s3:// URL takes {', '.join(sorted(_OPTIONS))}, once each; not {name}={value}."
            )
        options[name] = value
    addressing = options.get("addressing")
    if addressing is not None and addressing not in _ADDRESSING:
        raise ConfigError(
            f"The addressing of an s3:// URL is path, virtual or auto; not {addressing}."
        )
    endpoint = options.get("endpoint")
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError("An endpoint is http:// or https:// and a host, without credentials.")
    return options
