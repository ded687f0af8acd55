"""Ray's Jobs API over HTTP: it needs no raylet here, only the address of the head's dashboard."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient, JobType

from distill_core.errors import ClusterError, ConfigError, one_line
from tasks.pools.ray_settings import environment, has_token, token_mode

REQUEST_SECONDS = 10.0  # for one request
HEADERS = "RAY_JOB_HEADERS"  # Ray's own variable: a JSON object, e.g. for a proxy that wants a key
LAST_WORDS = 300  # characters of an answer in a message


class Unanswered(ClusterError):
    """The Jobs API does not answer, or reports a fault of its own; that may pass."""


@dataclass(frozen=True)
class Job:
    """A job of a cluster."""

    id: str  # of its submission
    status: str  # PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED
    exit_code: int | None = None  # of its driver; None: not ended by itself, or lost
    message: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Return whether it does not run any more."""
        return self.status not in ("PENDING", "RUNNING")


class JobsApi:
    """The Jobs API of one cluster.

    Args:
        address: http://HEAD:8265, or https.
        seconds: limit of one request.
    """

    def __init__(self, address: str, *, seconds: float = REQUEST_SECONDS) -> None:
        self.address, self._seconds = address.rstrip("/"), seconds
        self._client: _Client | None = None

    def jobs(self) -> list[Job]:
        """Return the submitted jobs that the cluster knows, ended ones included.

        Raises:
            ConfigError: the token is refused, or this is no Jobs API. So do all methods.
            Unanswered: there is no answer. So do all methods.
        """
        with self._connected() as client:
            details = client.list_jobs()
        return [_job(each) for each in details if each.type == JobType.SUBMISSION]

    def job(self, id: str) -> Job | None:
        """Return a job; None: the cluster does not know it."""
        with self._connected() as client:
            return None if (details := client.details(id)) is None else _job(details)

    def submit(
        self, id: str, command: str, variables: Mapping[str, str], metadata: Mapping[str, str]
    ) -> None:
        """Submit a job.

        Args:
            id: refused if the cluster has had a job of this id.
            command: for a shell on the head.
            variables: of its environment, and of its actors; the dashboard shows them.
            metadata: kept with the job.
        """
        with self._connected() as client:
            client.submit_job(
                entrypoint=command,
                submission_id=id,
                runtime_env={"env_vars": dict(variables)},
                metadata=dict(metadata),
            )

    def stop(self, id: str) -> None:
        """Send SIGTERM to a job and its processes, and SIGKILL if that does not end them."""
        with self._connected() as client:
            client.stop_job(id)

    def log(self, id: str) -> str:
        """Return what a job has written so far, to both of its outputs."""
        with self._connected() as client:
            return str(client.get_job_logs(id))

    @contextmanager
    def _connected(self) -> Iterator[_Client]:
        where = f"--submit {self.address}"
        try:
            with environment({"RAY_AUTH_MODE": token_mode()}):
                if self._client is None:
                    self._client = _Client(self.address, headers=_headers(), seconds=self._seconds)
                yield self._client
        except (ConfigError, Unanswered):
            raise
        except AuthenticationError as error:
            state = "the token set here is refused" if has_token() else "no token is set here"
            raise ConfigError(
                f"{where}: the cluster refuses access; {state}. Set RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the cluster's token."
            ) from error
        except (requests.RequestException, ConnectionError) as error:
            raise Unanswered(
                f"{where}: no answer ({_reason(error)}). Check that the head runs, and that the "
                "port of its dashboard is open to this machine."
            ) from error
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{where}: answers, but not as the Jobs API of Ray ({_reason(error)}). Set it to "
                "the address of the head's dashboard, e.g. http://HEAD:8265."
            ) from error


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client, with a limit for each request; its own waits for ever."""

    def __init__(self, address: str, *, headers: dict[str, str], seconds: float) -> None:
        self._seconds = seconds
        super().__init__(address, headers=headers)

    def details(self, id: str) -> JobDetails | None:
        """Return a job; None: there is none."""
        response = self._do_request("GET", f"/api/jobs/{id}")
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        response.raise_for_status()
        return JobDetails(**response.json())

    def _do_request(self, method: str, endpoint: str, **details: Any) -> requests.Response:
        """Raise for an answer that reports a fault of the server or of a proxy before it."""
        details.setdefault("timeout", self._seconds)
        response: requests.Response = super()._do_request(method, endpoint, **details)
        if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unanswered(
                f"--submit {self._address}: the Jobs API reports a fault "
                f"({response.status_code}: {_last_line(response.text)})."
            )
        return response


def _headers() -> dict[str, str]:
    """Return the headers that the environment sets.

    Raises:
        ConfigError: they are no JSON object.
    """
    try:
        headers = json.loads(os.environ.get(HEADERS) or "{}")
        return {str(name): str(value) for name, value in headers.items()}
    except (ValueError, AttributeError):  # the text may hold a secret
        raise ConfigError(
            f"{HEADERS}: expected a JSON object of names and values, e.g. "
            '{"X-Key": "..."}. Correct it, or unset it.'
        ) from None


def _job(details: Any) -> Job:
    status = getattr(details.status, "value", details.status)
    metadata = {str(k): str(v) for k, v in (details.metadata or {}).items()}
    return Job(
        details.submission_id, status, details.driver_exit_code, details.message or "", metadata
    )


def _reason(error: Exception) -> str:
    while (cause := error.__cause__ or error.__context__) and isinstance(cause, Exception):
        error = cause
    return _last_line(str(error)) or type(error).__name__


def _last_line(text: str) -> str:
    lines = [line.strip(" .") for line in text.splitlines()]
    return one_line(next((line for line in reversed(lines) if line), ""))[:LAST_WORDS]
