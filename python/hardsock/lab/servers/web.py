"""Web servers: nginx, and Python's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from hardsock.lab.servers.process import Server, find_program, free_port, running, work_directory

DEFAULT_FILES: Mapping[str, bytes] = {"hello.txt": b"hello\n", "big.bin": bytes(range(256)) * 4096}

_NGINX = """\
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log;
worker_rlimit_nofile 1024;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_timeout {keepalive};
    server {{
        listen 127.0.0.1:{port}{tls};
        root {directory}/files;
        location /chunked/ {{
            alias {directory}/files/;
            chunked_transfer_encoding on;
            ssi on;
            ssi_types *;
        }}
        {extra}
    }}
}}
"""


@contextmanager
def nginx(
    files: Mapping[str, bytes] = DEFAULT_FILES,
    *,
    certificate: tuple[Path, Path] | None = None,
    keepalive: int = 60,
    extra: str = "",
) -> Iterator[Server]:
    """nginx with *files* at ``/name``, and in chunks (no Content-Length) at ``/chunked/name``.

    Args:
        certificate: (certificate, key): speak TLS.
        keepalive: Seconds an idle connection is kept.
        extra: More lines for its ``server`` block.
    """
    program = find_program("nginx")
    with work_directory() as directory:
        _write_files(directory / "files", files)
        port = free_port()
        tls = ""
        if certificate is not None:
            tls = f" ssl;\nssl_certificate {certificate[0]};\nssl_certificate_key {certificate[1]}"
        config = directory / "nginx.conf"
        config.write_text(
            _NGINX.format(directory=directory, port=port, tls=tls, keepalive=keepalive, extra=extra)
        )
        argv = [program, "-e", f"{directory}/error.log", "-p", str(directory), "-c", str(config)]
        with running("nginx", argv, port, directory) as server:
            yield server


@contextmanager
def http_server(files: Mapping[str, bytes] = DEFAULT_FILES) -> Iterator[Server]:
    """Python's http.server (HTTP/1.0, closes after each answer) with *files*."""
    with work_directory() as directory:
        _write_files(directory / "files", files)
        port = free_port()
        argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1"]
        argv += ["--directory", str(directory / "files"), str(port)]
        with running("http.server", argv, port, directory) as server:
            yield server


def _write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
