"""Connecting: addresses, proxies, and what stands in for socket.create_connection."""
