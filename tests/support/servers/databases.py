"""PostgreSQL and MariaDB."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardsock.lab.servers.process import (
    PeerMissing,
    Server,
    ServerFailed,
    clean_environment,
    find_program,
    free_port,
    primary_group,
    running,
    work_directory,
)

_PROTOCOL_3 = 3 << 16


@contextmanager
def postgres(
    *, certificate: tuple[Path, Path] | None = None, access: str = "", **settings: str
) -> Iterator[Server]:
    """PostgreSQL over TCP, trusting user ``postgres``; *settings* as in postgresql.conf.

    With a (certificate, key) it speaks TLS to the one who asks for it. *access*: lines of pg_hba.conf
    that come before those that trust.
    """
    programs = _postgres_programs()
    user = _unprivileged("postgres")
    with work_directory(user) as directory:
        data = directory / "data"
        port = free_port()
        _initdb(programs / "initdb", data, user)
        if access:
            rules = data / "pg_hba.conf"
            rules.write_text(access + rules.read_text())
        if certificate is not None:
            settings = {**_tls_settings(directory, certificate, user), **settings}
        all_settings = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            **settings,
        }
        argv = [str(programs / "postgres"), "-D", str(data)]
        argv += [f"--{key}={value}" for key, value in all_settings.items()]
        with running(
            *("postgres", argv, port, directory),
            user=user,
            stop_signal=signal.SIGINT,
            is_ready=_lets_us_in,
        ) as server:
            yield server


def _tls_settings(
    directory: Path, certificate: tuple[Path, Path], user: str | None
) -> dict[str, str]:
    """Its own copies: it takes no key that others may read."""
    copies = [directory / "server.pem", directory / "server.key"]
    for source, copy in zip(certificate, copies, strict=True):
        copy.write_bytes(source.read_bytes())
        copy.chmod(0o600)
        if user is not None:
            shutil.chown(copy, user)
    return {"ssl": "on", "ssl_cert_file": str(copies[0]), "ssl_key_file": str(copies[1])}


def _lets_us_in(sock: socket.socket) -> bool:
    """Whether PostgreSQL asks for nothing more; while starting up it answers with an error."""
    body = struct.pack("!I", _PROTOCOL_3) + b"user\0postgres\0\0"
    sock.sendall(struct.pack("!I", len(body) + 4) + body)
    return sock.recv(1) == b"R"


def _postgres_programs() -> Path:
    """The newest installed version's directory of programs."""
    found = glob.glob("/usr/lib/postgresql/*/bin/initdb")
    if found:
        return max((Path(path).parent for path in found), key=lambda p: float(p.parent.name))
    return Path(find_program("initdb")).parent


def _unprivileged(wanted: str) -> str | None:
    """Whom to run as: neither database is to be root."""
    if os.geteuid() != 0:
        return None
    for name in (wanted, "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise PeerMissing(f"{wanted}: there is no unprivileged user to run it as")


def _initdb(program: Path, data: Path, user: str | None) -> None:
    argv = [str(program), "-D", str(data), "-U", "postgres", "-A", "trust"]
    argv += ["--no-sync", "--no-locale", "-E", "UTF8"]
    _run("initdb", argv, data.parent, user)


def _run(name: str, argv: list[str], directory: Path, user: str | None) -> None:
    """Make what a server begins with."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=clean_environment(),
        user=user,
        group=primary_group(user),
        extra_groups=None if user is None else [],
        timeout=120.0,
        text=True,
    )
    if done.returncode != 0:
        raise ServerFailed(f"{name} failed:\n{done.stdout}")


# ---- MariaDB


@contextmanager
def mariadb(
    *, certificate: tuple[Path, Path] | None = None, grants: bool = False, **settings: str
) -> Iterator[Server]:
    """MariaDB over TCP, which lets everybody do everything; *settings* as of ``mariadbd``.

    *grants*: It has users, to begin with ``root`` without a password.
    """
    server, install = find_program("mariadbd"), find_program("mariadb-install-db")
    user = _unprivileged("mysql")
    with work_directory(user) as directory:
        data, port = directory / "data", free_port()
        own = ["--no-defaults", f"--datadir={data}"]
        _run(
            "mariadb-install-db",
            [str(install), *own, "--skip-test-db", "--auth-root-authentication-method=normal"],
            directory,
            user,
        )
        if certificate is not None:
            for name, source in zip(("cert", "key"), certificate, strict=True):
                copy = directory / f"server.{name}"
                copy.write_bytes(source.read_bytes())
                copy.chmod(0o600)
                if user is not None:
                    shutil.chown(copy, user)
                settings = {f"ssl-{name}": str(copy), **settings}
        all_settings = {
            "port": str(port),
            "bind-address": "127.0.0.1",
            "socket": str(directory / "socket"),
            "innodb-flush-method": "nosync",
            "innodb-buffer-pool-size": "16M",
            **settings,
        }
        argv = [str(server), *own, "--skip-name-resolve"]
        argv += [] if grants else ["--skip-grant-tables"]
        argv += [f"--{key}={value}" for key, value in all_settings.items()]
        with running("mariadb", argv, port, directory, user=user, is_ready=_greets) as found:
            yield found


def _greets(sock: socket.socket) -> bool:
    """Whether MariaDB's greeting comes: a packet that begins with the version of the protocol."""
    return sock.recv(5)[4:] == b"\x0a"
