"""The API server, spoken to in raw JSON over the official client's transport.

Authentication is the client's: in-cluster (the token file is read again each minute, as the kubelet rotates it) or
kubeconfig; after a 401 the whole configuration is read again. Every call has a time-out; none is retried here. How long
the server asks us to wait (`Retry-After`) is told in ApiError, for the caller to follow.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from config.domain.addresses import Address
from k8s.api.trouble import SourceConfigError

_log = logging.getLogger(__name__)

Raw: TypeAlias = dict[str, Any]
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
MOST_RETRY_AFTER_SECONDS = 300.0
"""A longer wish is cut to this, so that a mistake of a proxy does not leave an agent blind for a day."""
_POOL_SIZE = 32
"""Connections that are kept; each watch holds one, and more than MOST_WATCHES there seldom are."""
_METADATA_ONLY = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1"


class Unreachable(Exception):
    """The API server could not be reached, or answered what is no JSON."""


class Silence(Exception):
    """A watch said nothing for as long as was agreed: either nothing happened, or the server is dead."""


class ApiError(Exception):
    """The API server refused. `status` is the HTTP code, `reason` Kubernetes' word (`Expired`, `Forbidden`, ...)."""

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after: float = 0.0, causes: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        """Seconds for which the server asks us to leave it alone; 0 when it asks for nothing."""
        self.causes = causes
        """Kubernetes' words for the details, such as `ResourceVersionTooLarge`."""


def api_error(status: int, answer: object, *, retry_after: str | None = None) -> ApiError:
    """From a `Status` object, or whatever came in its place; `retry_after` is the header of that name."""
    found = answer if isinstance(answer, dict) else {}
    details = found.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes")
    asked = max(_seconds(retry_after), _seconds(details.get("retryAfterSeconds")))
    return ApiError(
        status,
        str(found.get("reason") or "Unknown"),
        " ".join(str(found.get("message") or "no message").split())[:500],
        retry_after=min(asked, MOST_RETRY_AFTER_SECONDS),
        causes=frozenset(
            str(each.get("reason")) for each in (causes if isinstance(causes, list) else ()) if isinstance(each, dict)
        ),
    )


def _seconds(value: object) -> float:
    """Of `Retry-After`: a number of seconds, or a date (RFC 9110). 0 for nothing, and for what is neither."""
    text = str(value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


class WatchStream:
    """One watch: lines as they come, until the server ends it. `stop` may be called from any thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._stopped = False

    def lines(self) -> Iterator[bytes]:
        """Raises Unreachable when the connection breaks, Silence when it is silent for longer than was agreed."""
        rest = b""
        try:
            for chunk in self._response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
        except urllib3.exceptions.ReadTimeoutError as error:
            raise Silence from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not self._stopped:
                raise Unreachable(_why(error)) from error
        finally:
            self._response.close()

    def stop(self) -> None:
        self._stopped = True
        try:
            self._response.shutdown()
        except (ValueError, OSError):  # it is over already
            return


class Api:
    """May be used by several threads."""

    def __init__(self, kubeconfig: str) -> None:
        """`kubeconfig`: a path; "" is in-cluster, else ~/.kube/config. Raises SourceConfigError."""
        self._kubeconfig = kubeconfig
        # Guards the exchange of the client after a 401 alone.
        self._lock = threading.Lock()
        self._client = self._connect()

    @property
    def client(self) -> ApiClient:
        """For the official client's own classes."""
        return self._client

    def servers(self) -> frozenset[tuple[Address, int]]:
        """Addresses and ports at which this process may reach the API server, as far as its configuration names them
        by number: those of the client, and those that the kubelet names to every Pod."""
        url = urlsplit(self._client.configuration.host)
        named = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
        env = (os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", ""))
        return frozenset(found for host, port in (named, env) if (found := _numeric(host, port)))

    def forget_connections(self) -> None:
        """Later requests use connections of their own: those that are kept may have died while we slept, and each would
        cost a time-out to find out. Requests that are under way are left alone."""
        self._client.rest_client.pool_manager.clear()

    def get(self, path: str, parameters: Mapping[str, str | int], *, metadata_only: bool = False) -> Raw:
        """One object or one page of a list. Raises ApiError, Unreachable."""
        accept = _METADATA_ONLY.format(list="List") if metadata_only else "application/json"
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        return _decode(self._request("GET", _url(path, parameters), headers=headers))

    def send(self, method: str, path: str, body: Raw | list[Raw], content_type: str = "application/json") -> Raw:
        """POST, PUT or PATCH. Raises ApiError, Unreachable."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        return _decode(self._request(method, path, headers=headers, body=json.dumps(body)))

    def watch(
        self, path: str, parameters: Mapping[str, str | int], *, silence_seconds: float, metadata_only: bool = False
    ) -> WatchStream:
        """Raises ApiError, Unreachable. That the watch is accepted is answered at once, as any other request."""
        accept = _METADATA_ONLY.format(list="") if metadata_only else "application/json"
        response = self._request("GET", _url(path, parameters), headers={"Accept": accept})
        if response.status >= 400:
            _decode(response)
        connection = getattr(response, "connection", None)
        if connection is not None and connection.sock is not None:
            connection.sock.settimeout(silence_seconds)
        return WatchStream(response)

    def _request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        body: str | None = None,
    ) -> urllib3.BaseHTTPResponse:
        client = self._client
        try:
            token = client.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
            if token:
                headers["Authorization"] = token
            response: urllib3.BaseHTTPResponse = client.rest_client.pool_manager.request(
                method,
                client.configuration.host + url,
                headers={**client.default_headers, **headers},
                body=body,
                preload_content=False,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            )
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
            raise Unreachable(_why(error)) from error
        if response.status == 401:
            self.reconnect(client)
        return response

    def reconnect(self, refused: ApiClient) -> None:
        """Our credentials are no longer good: reads the configuration again, for the next request."""
        with self._lock:
            if self._client is refused:
                try:
                    self._client = self._connect()
                except SourceConfigError as error:
                    _log.warning("the API server refused our credentials, and %s", error)

    def _connect(self) -> ApiClient:
        configuration = Configuration()
        configuration.connection_pool_maxsize = _POOL_SIZE
        # For the client's own classes: urllib3 would try three times more, each with the whole time-out.
        configuration.retries = False
        configuration.keep_alive = True  # a peer that vanished without a word is noticed by the kernel
        try:
            if self._kubeconfig:
                load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=self._kubeconfig, client_configuration=configuration
                )
            else:
                _load_default(configuration)
        except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            where = self._kubeconfig or "in-cluster, then ~/.kube/config"
            msg = f"source.kubeconfig: {where}: {error}; it must be the path of a kubeconfig file, or empty in a Pod"
            raise SourceConfigError(msg) from error
        client = ApiClient(configuration)
        client.user_agent = "localredirect"
        return client


def _load_default(configuration: Configuration) -> None:
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except ConfigException as error:
        if not Path("~/.kube/config").expanduser().exists():
            raise
        _log.debug("not in a cluster: %s", error)
        load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]


def _numeric(host: str, port: int | str) -> tuple[Address, int] | None:
    """None for a name, which only a resolver knows, and for what is no address at all."""
    try:
        address = ip_address(host.strip("[]"))
        return getattr(address, "ipv4_mapped", None) or address, int(port)
    except ValueError:
        return None


def _url(path: str, parameters: Mapping[str, str | int]) -> str:
    return f"{path}?{urlencode(parameters)}" if parameters else path


def _decode(response: urllib3.BaseHTTPResponse) -> Raw:
    try:
        data = response.read()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreachable(_why(error)) from error
    finally:
        response.release_conn()
    try:
        answer = json.loads(data)
    except ValueError:
        answer = {"reason": response.reason, "message": data[:200].decode(errors="replace")}
        if response.status < 400:
            raise Unreachable(f"the answer is no JSON: {data[:80]!r}") from None
    if response.status >= 400:
        raise api_error(response.status, answer, retry_after=response.headers.get("Retry-After"))
    if not isinstance(answer, dict):
        raise Unreachable(f"the answer is no JSON object: {data[:80]!r}")
    return answer


def _why(error: Exception) -> str:
    """urllib3 nests its errors; the last line says it."""
    return " ".join(str(error).split())[:300] or type(error).__name__
