"""Benchmarks of hardsock beside its peers, in one run, as ratios: `python -m bench`.

README.md says how it measures. `works/` holds one file per work, `drivers/` one per Python
implementation, `floors/` the raw C programs, `go/` the Go ones, `peers/` the other side.
"""
