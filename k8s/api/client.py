"""Requests to the API server, in raw JSON over the official client's transport.

The client does the authentication: in-cluster (it reads the token file again each minute, since the kubelet rotates the
token) or by kubeconfig. After a 401 the whole configuration is read again. Every request has a time-out. No request is
retried here: ApiError has the time that the server asks us to wait (`Retry-After`), and the caller has to obey it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from config.domain.addresses import Address
from k8s.api.errors import Silence, SourceConfigError, Unreachable, api_error
from k8s.objects.raw import Raw

_log = logging.getLogger(__name__)

_POOL_SIZE = 32
"""Connections that are kept open. Each watch holds one, and there are seldom more watches than this."""
_METADATA_ONLY = "application/json;as=PartialObjectMetadata{list};g=meta.k8s.io;v=v1"


class Timeouts(NamedTuple):
    """Seconds to connect, and to wait for each part of an answer."""

    connect: float
    read: float


TIMEOUTS = Timeouts(connect=5.0, read=30.0)


class WatchStream:
    """One watch: its lines as they arrive, until the server ends it. `stop` may be called from any thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._stopped = False

    def lines(self) -> Iterator[bytes]:
        """Raises Unreachable when the connection breaks, Silence when nothing came for the agreed time."""
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
        except (ValueError, OSError):  # the stream has already ended
            return


class Api:
    """May be used by several threads."""

    def __init__(self, kubeconfig: str) -> None:
        """`kubeconfig`: a path; "" is in-cluster, else ~/.kube/config. Raises SourceConfigError."""
        self._kubeconfig = kubeconfig
        # Guards only the replacement of the client after a 401.
        self._lock = threading.Lock()
        self._client = self._connect()

    def servers(self) -> frozenset[tuple[Address, int]]:
        """Address and port of the API server as the client uses it, and as the kubelet gives it to every Pod in its
        environment. Where there is a host name in place of an IP address, it is left out."""
        url = urlsplit(self._client.configuration.host)
        named = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
        env = (os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", ""))
        return frozenset(found for host, port in (named, env) if (found := _numeric(host, port)))

    def forget_connections(self) -> None:
        """Makes later requests open new connections. Those that are kept may have died while this machine slept, and
        each of them would cost a time-out to find out. Requests that are under way are not affected."""
        self._client.rest_client.pool_manager.clear()

    def get(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        *,
        metadata_only: bool = False,
        timeouts: Timeouts | None = None,
    ) -> Raw:
        """One object or one page of a list. Raises ApiError, Unreachable."""
        accept = _METADATA_ONLY.format(list="List") if metadata_only else "application/json"
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        return _decode(self._request("GET", _url(path, parameters), headers=headers, timeouts=timeouts))

    def send(
        self,
        method: str,
        path: str,
        body: Raw | list[Raw],
        content_type: str = "application/json",
        *,
        timeouts: Timeouts | None = None,
    ) -> Raw:
        """POST, PUT or PATCH. Raises ApiError, Unreachable."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        return _decode(self._request(method, path, headers=headers, body=json.dumps(body), timeouts=timeouts))

    def watch(
        self, path: str, parameters: Mapping[str, str | int], *, silence_seconds: float, metadata_only: bool = False
    ) -> WatchStream:
        """Returns once the server has accepted the watch. Raises ApiError, Unreachable."""
        accept = _METADATA_ONLY.format(list="") if metadata_only else "application/json"
        response = self._request("GET", _url(path, parameters), headers={"Accept": accept})
        if response.status >= HTTPStatus.BAD_REQUEST:
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
        timeouts: Timeouts | None = None,
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
                timeout=urllib3.Timeout(**(timeouts or TIMEOUTS)._asdict()),
            )
        except (urllib3.exceptions.HTTPError, OSError, ConfigException) as error:
            raise Unreachable(_why(error)) from error
        if response.status == HTTPStatus.UNAUTHORIZED:
            self._reconnect(client)
        return response

    def _reconnect(self, refused: ApiClient) -> None:
        """Reads the configuration again for the next request, since the server refused our credentials."""
        with self._lock:
            if self._client is refused:
                try:
                    self._client = self._connect()
                except SourceConfigError as error:
                    _log.warning("the API server refused our credentials, and new ones cannot be read: %s", error)

    def _connect(self) -> ApiClient:
        configuration = Configuration()
        configuration.connection_pool_maxsize = _POOL_SIZE
        configuration.keep_alive = True  # so that the kernel notices a peer that vanished
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
    """None if `host` is not an IP address, or `port` not a number."""
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
        if response.status < HTTPStatus.BAD_REQUEST:
            raise Unreachable(f"the answer is not JSON: {data[:80]!r}") from None
    if response.status >= HTTPStatus.BAD_REQUEST:
        raise api_error(response.status, answer, retry_after=response.headers.get("Retry-After"))
    if not isinstance(answer, dict):
        raise Unreachable(f"the answer is not a JSON object: {data[:80]!r}")
    return answer


def _why(error: Exception) -> str:
    """The error on one line: urllib3 nests its errors."""
    return " ".join(str(error).split())[:300] or type(error).__name__
