"""What every adapter of `hardsock.adapters` keeps, on real servers."""
