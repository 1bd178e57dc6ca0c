"""Servers in front of servers, and bare TLS: haproxy, nginx, stunnel, openssl s_server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hardsock.lab.servers.process import (
    PeerMissing,
    Server,
    find_program,
    free_port,
    running,
    work_directory,
)

_HAPROXY = """\
global
    maxconn 512
defaults
    mode {mode}
    timeout connect 5s
    timeout client {timeout}
    timeout server {timeout}
frontend front
    bind 127.0.0.1:{port}{bind}
    default_backend back
backend back
    server peer {backend[0]}:{backend[1]}{server}
"""

_NGINX = """\
daemon off;
pid {directory}/pid;
error_log {directory}/error.log;
load_module {module};
worker_processes 1;
worker_rlimit_nofile 1024;
events {{ worker_connections 512; }}
stream {{
    server {{
        listen 127.0.0.1:{port};
        proxy_pass {backend[0]}:{backend[1]};
        proxy_protocol on;
        {extra}
    }}
}}
"""
_STREAM_MODULES = (
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
)

_PEM_END = "-----END CERTIFICATE-----\n"

_STUNNEL = """\
foreground = yes
pid =
debug = notice
syslog = no
[peer]
accept = 127.0.0.1:{port}
connect = {backend[0]}:{backend[1]}
cert = {certificate[0]}
key = {certificate[1]}
{extra}
"""


@contextmanager
def haproxy(
    backend: tuple[str, int],
    *,
    mode: str = "tcp",
    timeout: str = "30s",
    send_proxy: str = "",
    certificate: tuple[Path, Path] | None = None,
    bind: str = "",
    server: str = "",
) -> Iterator[Server]:
    """haproxy in front of *backend*.

    Args:
        backend: Where it sends connections.
        mode: ``"tcp"`` or ``"http"``.
        timeout: After how long it cuts idle connections.
        send_proxy: ``"send-proxy"`` or ``"send-proxy-v2"``: announce the client to the backend.
        certificate: (certificate, key): speak TLS to clients.
        bind: More words about its own socket, such as ``"ssl-max-ver TLSv1.2"``.
        server: More words about the backend, such as ``"ssl verify required ca-file ..."``.
    """
    program = find_program("haproxy")
    with work_directory() as directory:
        port = free_port()
        if certificate is not None:
            both = directory / "both.pem"
            both.write_bytes(b"".join(path.read_bytes() for path in certificate))
            bind = f"ssl crt {both} {bind}"
        config = directory / "haproxy.cfg"
        config.write_text(
            _HAPROXY.format(
                mode=mode,
                timeout=timeout,
                port=port,
                bind=f" {bind}",
                backend=backend,
                server=f" {send_proxy} {server}",
            )
        )
        with running("haproxy", [program, "-db", "-f", str(config)], port, directory) as started:
            yield started


@contextmanager
def nginx_stream(backend: tuple[str, int], *, extra: str = "") -> Iterator[Server]:
    """nginx in front of *backend*, which passes bytes on and says who the client is (PROXY v1).

    Args:
        extra: More lines, such as ``ssl_preread on;``: it reads the ClientHello before it connects,
            and sends it behind its header at once.
    """
    program = find_program("nginx")
    module = next((path for path in _STREAM_MODULES if Path(path).exists()), None)
    if module is None:
        raise PeerMissing("nginx has no stream module: libnginx-mod-stream")
    with work_directory() as directory:
        port = free_port()
        config = directory / "nginx.conf"
        config.write_text(
            _NGINX.format(
                directory=directory, module=module, port=port, backend=backend, extra=extra
            )
        )
        argv = [program, "-e", f"{directory}/error.log", "-p", str(directory), "-c", str(config)]
        with running("nginx", argv, port, directory) as server:
            yield server


@contextmanager
def stunnel(
    backend: tuple[str, int], certificate: tuple[Path, Path], *, extra: str = ""
) -> Iterator[Server]:
    """stunnel that takes TLS off and goes on to *backend*; *extra* lines of configuration.

    With ``client = yes`` it puts TLS on instead, and shows the certificate if it is asked for one.
    """
    program = find_program("stunnel", "stunnel4")
    with work_directory() as directory:
        port = free_port()
        config = directory / "stunnel.conf"
        config.write_text(
            _STUNNEL.format(port=port, backend=backend, certificate=certificate, extra=extra)
        )
        with running("stunnel", [program, str(config)], port, directory) as server:
            yield server


@contextmanager
def openssl_s_server(
    certificate: tuple[Path, Path], options: Sequence[str] = ()
) -> Iterator[Server]:
    """``openssl s_server`` that sends each line back reversed; *options* such as ``["-tls1_2"]``.

    Sends the whole chain in the file. Serves one connection at a time; others wait.
    """
    program = find_program("openssl")
    with work_directory() as directory:
        port = free_port()
        argv = [program, "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", "-rev"]
        argv += ["-cert", str(certificate[0]), "-key", str(certificate[1])]
        above = certificate[0].read_text().partition(_PEM_END)[2]
        if _PEM_END in above:  # -cert takes only the first of the file
            (directory / "chain.pem").write_text(above)
            argv += ["-cert_chain", str(directory / "chain.pem")]
        with running("openssl s_server", [*argv, *options], port, directory) as server:
            yield server
