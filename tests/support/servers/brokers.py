"""RabbitMQ and mosquitto."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardsock.lab.servers.process import Server, find_program, free_port, running, work_directory
from hardsock.lab.waits import poll_until

_RABBIT = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # Debian's in PATH would change the user.

_BOOT_TIMEOUT = 180.0  # Erlang takes its time, more so on a busy machine.


@contextmanager
def mosquitto(*, certificate: tuple[Path, Path] | None = None) -> Iterator[Server]:
    """An MQTT broker without passwords; with a (certificate, key) over TLS alone."""
    program = find_program("mosquitto")
    with work_directory() as directory:
        port = free_port()
        lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "user root"]
        if certificate is not None:
            lines += [f"certfile {certificate[0]}", f"keyfile {certificate[1]}"]
        config = directory / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        with running("mosquitto", [program, "-c", str(config)], port, directory) as server:
            yield server


@contextmanager
def rabbitmq(*, certificate: tuple[Path, Path] | None = None) -> Iterator[tuple[Server, int]]:
    """RabbitMQ, of guest and guest, and the port of its TLS listener (0 without *certificate*).

    With an epmd of its own: one that Erlang starts by itself would stay.
    """
    program = find_program(_RABBIT, "rabbitmq-server")
    with work_directory() as directory:
        names, port, tls_port = free_port(), free_port(), 0
        lines = [f"listeners.tcp.1 = 127.0.0.1:{port}", "log.console = true", "log.file = false"]
        if certificate is not None:
            tls_port = free_port()
            lines += [
                f"listeners.ssl.1 = 127.0.0.1:{tls_port}",
                f"ssl_options.certfile = {certificate[0]}",
                f"ssl_options.keyfile = {certificate[1]}",
            ]
        (directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        settings = {
            "HOME": str(directory),
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": f"test{port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }
        argv = [find_program("env"), *(f"{key}={value}" for key, value in settings.items())]
        with (
            running("epmd", [find_program("epmd"), "-port", str(names)], names, directory),
            running(
                "rabbitmq", [*argv, program], port, directory, ready_timeout=_BOOT_TIMEOUT
            ) as server,
        ):
            # That of TLS comes up later, and closes what it accepts before it is ready.
            assert not tls_port or poll_until(lambda: _speaks_tls(tls_port), _BOOT_TIMEOUT)
            yield server, tls_port


def _speaks_tls(port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            context.wrap_socket(plain).close()
    except OSError:
        return False
    return True
