"""What servers are made of, whatever drives them.

`options`, `records`, `ledger`, `drain`, `disposition`, `face`, `ambient` and `opening` know no thread, no lock
and no wait: the threaded server and the awaited one share them. `workers` and `server` are threads.
"""
