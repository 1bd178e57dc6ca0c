"""One module per Python implementation; each has a function per work it can do, named like it.

`function(target, seconds, count)` measures one slice and returns what model.Measure says. Setting
up (connections, loops, threads) happens inside the slice but outside the measured span.
"""
