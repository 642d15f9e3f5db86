"""Prefect APIs that this process is a client of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@dataclass(frozen=True)
class PrefectApi:
    """The API at `url`; without `auth`, its password is that of PREFECT_API_AUTH_STRING."""

    url: str
    auth: str | None = None

    @classmethod
    def own(cls, url: str) -> PrefectApi:
        """Return the API of a server that was started in this environment, with the password it then asks for."""
        return cls(url, os.environ.get("PREFECT_SERVER_API_AUTH_STRING"))

    def environment(self) -> dict[str, str]:
        """Return what tells a child process to be a client, too."""
        auth = {"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {}
        return {"PREFECT_API_URL": self.url, **auth}

    def settings(self) -> AbstractContextManager[object]:
        """Make what runs meanwhile a client of this API."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        auth = {PREFECT_API_AUTH_STRING: self.auth} if self.auth else {}
        return temporary_settings({PREFECT_API_URL: self.url, **auth})

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        from prefect.client.orchestration import get_client

        with self.settings(), get_client(sync_client=True) as client:
            yield client
