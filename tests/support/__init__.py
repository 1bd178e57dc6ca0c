"""What the tests of hardsock stand on beside `hardsock.lab`: servers, keys, loads, faults.

Each name is imported from its module. What tests of others can use as well is in `hardsock.lab`.
That no test leaves anything behind is `hardsock.pytest_plugin`'s task.
"""
