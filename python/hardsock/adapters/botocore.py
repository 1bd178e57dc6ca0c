"""botocore, and so boto3, over hardsock: one deadline for a call to AWS, its retries included.

    import hardsock.adapters.botocore

    s3 = hardsock.adapters.botocore.client("s3", total=10)
    s3 = hardsock.adapters.botocore.over(boto3.client("s3"), total=10)     # one that exists

*total* (or a scope, ``with hardsock.timeout(10):``) covers a call as a whole: the lookup, connecting,
TLS, sending the body, the wait for ``100 Continue``, botocore's tries with their pauses, and every
byte of the answer. A streaming body (``get_object(...)["Body"]``) ends with it as well, wherever it is
read. Paginators and waiters make calls, each of which takes *total* at most; a scope covers all of
their calls and the pauses between them. ``connect_timeout`` and ``read_timeout`` count besides, and each
read is a total for that read.

At the deadline: botocore's ``ConnectTimeoutError`` or ``ReadTimeoutError``, with
``hardsock.DeadlineExceeded`` among their causes. After a cancel, from any thread:
``hardsock.Cancelled``. Neither is tried again; a cancelled call costs nothing of the retry quota.

TLS is hardsock's, set up by ``verify=`` and the ``Config``. Not covered, since botocore makes clients
of its own for them: fetching credentials (instance metadata, STS). ``upload_file`` and its like work in
threads of s3transfer, which a scope does not reach: ``TransferConfig(use_threads=False)``. The
``adaptive`` retry mode waits for its own rate limit before a call begins.

Tested with botocore 1.35 to 1.44. What is not public there and used here: ``client._endpoint``, of which
``_send_request`` and ``_needs_retry``; ``URLLib3Session`` and its ``_pool_classes_by_scheme``;
``AWSConnection._send_output``; ``Waiter._operation_method``.
"""

from __future__ import annotations

import copy
import functools
import ssl
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import botocore.awsrequest
import botocore.endpoint
import botocore.hooks
import botocore.httpsession
import botocore.session
import urllib3
from botocore.exceptions import (
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
    WaiterError,
)

from hardsock._core import Breaker
from hardsock._dial_limits import DialLimits
from hardsock._errors import DeadlineExceeded
from hardsock._scope import current, sleep, timeout
from hardsock.adapters import urllib3 as over_urllib3
from hardsock.adapters._causes import breaker_open_in, caused_by, handled, raise_if_cancelled
from hardsock.adapters._dial import checked_limits
from hardsock.adapters._outcomes import Outcomes, outcomes
from hardsock.adapters._versions import check
from hardsock.tls.ssl_context import SSLContext

__all__ = ["client", "over"]

check("botocore", version("botocore"), "1.35", "1.44")

_CONTINUE_WAIT = 1.0
"""Seconds for ``100 Continue``, as botocore has it."""


# ---- Connections


class _Expecting(botocore.awsrequest.AWSConnection):
    """botocore's part of a connection; the wait for ``100 Continue`` ends with the scope."""

    sock: Any
    _expect_header_set: bool

    def _send_output(self, message_body: Any = None, *args: Any, **kwargs: Any) -> None:
        expects, self._expect_header_set = self._expect_header_set, False
        if not expects:
            super()._send_output(message_body, *args, **kwargs)
            return
        super()._send_output(None, *args, **kwargs)
        if self._answered():
            self._handle_expect_response(message_body)
        elif message_body is not None:
            self.send(message_body)

    def _answered(self) -> bool:
        try:
            getattr(self.sock, "socket", self.sock).peek(1, timeout=_CONTINUE_WAIT)
        except DeadlineExceeded:
            token = current()
            if token is not None:
                token.check()
            return False
        return True


class _Connection(_Expecting, over_urllib3.HTTPConnection):
    pass


class _SecureConnection(_Expecting, over_urllib3.HTTPSConnection):
    pass


class _Pool(over_urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(over_urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Session(botocore.httpsession.URLLib3Session):
    """botocore's session, of hardsock's connections."""

    def _get_ssl_context(self) -> Any:
        return SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def _get_pool_manager_kwargs(self, **extra_kwargs: Any) -> Any:
        # Each connection is told what to trust; hardsock keeps a context for each such setting.
        return super()._get_pool_manager_kwargs(**extra_kwargs) | {"ssl_context": None}

    def _setup_proxy_ssl_context(self, proxy_url: str) -> Any:
        made = super()._setup_proxy_ssl_context(proxy_url)
        if made is not None and self._proxy_config.settings.get("proxy_ca_bundle") is None:
            made.load_default_certs()
        return made

    def send(self, request: Any) -> Any:
        """As botocore has it; a cancel is none of its errors, and no time is no lost connection."""
        before = handled()
        try:
            return super().send(request)
        except ConnectionClosedError as exc:
            if not caused_by(exc, DeadlineExceeded, before):
                raise
            raise ReadTimeoutError(endpoint_url=request.url, error=exc) from exc
        except HTTPClientError as exc:
            raise_if_cancelled(exc, before)
            raise


def _pool_class(kind: type, limits: DialLimits | None, learns: Outcomes | None) -> type:
    if learns is None:
        return type(kind.__name__, (kind,), {"dial_limits": limits})
    bases = (over_urllib3.Learning, kind)
    return type(kind.__name__, bases, {"dial_limits": limits, "outcomes": learns})


def _over_session(session: Any, limits: DialLimits | None, learns: Outcomes | None) -> None:
    session.close()
    session.__class__ = _Session
    session._pool_classes_by_scheme = {
        scheme: _pool_class(kind, limits, learns)
        for scheme, kind in (("http", _Pool), ("https", _SecurePool))
    }
    session._proxy_managers = {}
    session._manager = urllib3.PoolManager(**session._get_pool_manager_kwargs())
    session._manager.pool_classes_by_scheme = session._pool_classes_by_scheme


# ---- Calls


class _Endpoint(botocore.endpoint.Endpoint):
    """botocore's endpoint, whose calls end with the scope."""

    total: float | None
    dial_limits: DialLimits | None
    outcomes: Outcomes | None

    def _send_request(self, request_dict: Any, operation_model: Any) -> Any:
        with timeout(self.total, name="total of the call"):
            return super()._send_request(request_dict, operation_model)

    def _get_response(self, request: Any, operation_model: Any, context: Any) -> Any:
        before = handled()
        success, exception = super()._get_response(request, operation_model, context)
        raise_if_cancelled(exception, before)
        return success, exception

    def _needs_retry(  # as botocore has it, with a pause that ends with the scope
        self,
        attempts: int,
        operation_model: Any,
        request_dict: Any,
        response: Any = None,
        caught_exception: Any = None,
    ) -> bool:
        token = current()
        if caught_exception is not None and token is not None and token.wait(0):
            return False  # It is told as it is; an answer that wants another try ends in the pause.
        if caught_exception is not None and breaker_open_in(caught_exception, handled()):
            return False
        service = operation_model.service_model.service_id.hyphenize()
        answers = self._event_emitter.emit(
            f"needs-retry.{service}.{operation_model.name}",
            response=response,
            endpoint=self,
            operation=operation_model,
            attempts=attempts,
            caught_exception=caught_exception,
            request_dict=request_dict,
        )
        seconds = botocore.hooks.first_non_none_response(answers)
        if seconds is None or seconds is False:
            return False
        try:
            sleep(seconds)
        except DeadlineExceeded as exc:
            raise ReadTimeoutError(
                endpoint_url=self.host, error=f"no time left for another try: {exc}"
            ) from exc
        return True


class _Waiter:
    """botocore's waiter, whose pauses end with the scope."""

    name: str
    config: Any
    _operation_method: Any

    def wait(self, **kwargs: Any) -> None:
        """As botocore has it."""
        config = dict(kwargs.pop("WaiterConfig", {}))
        seconds = config.get("Delay", self.config.delay)
        same = copy.copy(self)  # a waiter may be in use by several threads
        same._operation_method = self._paced(seconds)
        super(_Waiter, same).wait(WaiterConfig={**config, "Delay": 0}, **kwargs)  # type: ignore[misc]

    def _paced(self, seconds: float) -> Any:
        operate = self._operation_method
        last: dict[str, Any] | None = None

        def call(**kwargs: Any) -> Any:
            nonlocal last
            if last is not None:
                try:
                    sleep(seconds)
                except DeadlineExceeded as exc:
                    raise WaiterError(
                        name=self.name, reason=f"no time left: {exc}", last_response=last
                    ) from exc
            last = operate(**kwargs)
            return last

        return call


_waiters: dict[type, type] = {}


def _get_waiter(client: Any, waiter_name: str) -> Any:
    made = type(client).get_waiter(client, waiter_name)
    kind = type(made)
    if kind not in _waiters:
        _waiters[kind] = type(kind.__name__, (_Waiter, kind), {})
    made.__class__ = _waiters[kind]
    return made


def over(
    client: Any,
    total: float | None = None,
    *,
    dial_limits: DialLimits | None = None,
    breaker: Breaker | None = None,
    breaker_statuses: Iterable[int] = (),
) -> Any:
    """Put a client of botocore or boto3, or a resource of boto3, over hardsock, and return it.

    Connections that it had are closed. It may be called again, to change what it was given.

    Args:
        client: As ``create_client``, ``boto3.client`` or ``boto3.resource`` made it.
        total: Seconds for each call as a whole; ``None``: the ambient scope alone decides.
        dial_limits: For connections in the making: as ``hardsock.connect(limits=)``.
        breaker: Learns from each try. While a node is ejected a call fails at once with a
            ``HTTPClientError``, of which ``hardsock.BreakerOpen`` is the cause, and is not tried again.
        breaker_statuses: Statuses that are failures of the node as well, such as 502, 503 and 504.

    Raises:
        ValueError: *breaker_statuses* are none, or without *breaker*.
        TypeError: It is no such client, or one with an HTTP session of somebody's own.
    """
    checked_limits(dial_limits)
    learns = outcomes(breaker, breaker_statuses)
    whose = getattr(getattr(client, "meta", None), "client", client)
    endpoint: Any = getattr(whose, "_endpoint", None)
    if type(endpoint) is botocore.endpoint.Endpoint:
        session = endpoint.http_session
        if type(session) is not botocore.httpsession.URLLib3Session:
            raise TypeError(
                f"client must have botocore's own HTTP session, got {type(session).__name__}"
            )
        _over_session(session, dial_limits, learns)
        endpoint.__class__ = _Endpoint
        whose.get_waiter = functools.partial(_get_waiter, whose)
    elif type(endpoint) is not _Endpoint:
        raise TypeError(
            f"client must be a client of botocore or a resource of boto3, got {type(client).__name__}"
        )
    elif endpoint.dial_limits is not dial_limits or endpoint.outcomes != learns:
        _over_session(endpoint.http_session, dial_limits, learns)
    endpoint.total, endpoint.dial_limits, endpoint.outcomes = total, dial_limits, learns
    return client


def client(
    service: str,
    *,
    total: float | None = None,
    dial_limits: DialLimits | None = None,
    breaker: Breaker | None = None,
    breaker_statuses: Iterable[int] = (),
    session: botocore.session.Session | None = None,
    **settings: Any,
) -> Any:
    """Make a client of botocore each of whose calls takes *total* seconds at most.

    Args:
        service: As ``botocore.session.Session.create_client`` takes it: ``"s3"``.
        total: Seconds; ``None``: the ambient scope alone decides.
        dial_limits: As of ``over``.
        breaker: The same.
        breaker_statuses: The same.
        session: Whose credentials and settings; ``None``: a new one. Of boto3: write
            ``over(boto3.client(...))``.
        settings: Further parameters of ``create_client``: ``region_name``, ``config``, ``verify``.
    """
    whose = botocore.session.get_session() if session is None else session
    return over(
        whose.create_client(service, **settings),
        total,
        dial_limits=dial_limits,
        breaker=breaker,
        breaker_statuses=breaker_statuses,
    )
