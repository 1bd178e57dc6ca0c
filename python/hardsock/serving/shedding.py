"""Who was sent away before there was a connection, by the reason."""

from __future__ import annotations

from hardsock._core import Listener

__all__ = ["count_shed"]


def count_shed(listener: Listener, refused: int = 0) -> dict[str, int]:
    """Count them since the listener was made; also after its end. Only what has happened is there."""
    stats = listener.stats()
    counts = {"descriptors": stats.shed, "guard": refused}
    if stats.handshakes is not None:
        counts["silent"] = stats.handshakes.failed.get("evicted", 0)
        counts["slow handshake"] = stats.handshakes.failed.get("timeout", 0)
    if stats.proxy is not None:
        counts["bad header"] = stats.proxy.malformed
        counts["slow header"] = stats.proxy.timeout
    if stats.peers is not None:
        counts["peer connections"] = stats.peers.refused_connections
        counts["peer network"] = stats.peers.refused_network
        counts["peer rate"] = stats.peers.refused_rate
    return {reason: count for reason, count in counts.items() if count}
