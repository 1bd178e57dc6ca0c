"""Pools: lending connections, and knowing who holds them."""
