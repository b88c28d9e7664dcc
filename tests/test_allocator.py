"""How often the kernel has to hand out memory, in a process of its own: what came before would count."""

import os
import platform
import subprocess
import sys
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")

STEPS = """
import resource, torch
from runner.allocator import kept_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1])

def step():  # eight blocks of 16 MiB, as a forward pass keeps and a backward pass frees them
    return [torch.zeros(4 << 20) for _ in range(8)]

def run():
    step(), step()
    before = faults()
    for _ in range(4):
        step()
    return faults() - before

print(run())
with kept_memory():
    print(run())
    kept = resident()
print(kept - resident())
"""
TOUCHED = 4 * 128 * 2**20 // os.sysconf("SC_PAGE_SIZE")  # pages, by four steps


class Pages(NamedTuple):
    """Handed out during four steps outside of and within the context, and given back at its end."""

    outside: int
    within: int
    given_back: int


def pages(**environment: str) -> Pages:
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, env=own | environment
    )
    return Pages(*map(int, done.stdout.split()))


def test_freed_memory_is_used_again_within_and_given_back_at_the_end() -> None:
    found = pages()
    assert found.outside > TOUCHED / 8
    assert found.within < TOUCHED / 1000
    assert found.given_back > TOUCHED / 4 / 2


def test_thresholds_of_the_user_stay() -> None:
    assert pages(MALLOC_TRIM_THRESHOLD_="0").within > TOUCHED / 8
