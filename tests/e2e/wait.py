"""Waiting for things in tests: always for an event, always with a deadline."""

import concurrent.futures
import itertools
import os
import time

_numbers = itertools.count(1)


def unique(word):
    """A name no other test uses, so that tests can share one daemon."""
    return f"{word}-{os.getpid()}-{next(_numbers)}"


def eventually(probe, deadline=30.0, every=0.01):
    """Call probe until it returns something true, and return that; fail at the deadline."""
    end = time.monotonic() + deadline
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < end, f"still {value!r} after {deadline} s"
        time.sleep(every)


def together(function, items, workers=None):
    """Run function on all items at the same time; the results in the order of the items."""
    items = list(items)
    with concurrent.futures.ThreadPoolExecutor(workers or max(1, len(items))) as pool:
        return list(pool.map(function, items))
