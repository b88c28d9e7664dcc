"""`python run.py BUILD < jobs.json`: builds the device in the folder BUILD, and makes there the runs that are listed,
{folder: overrides}. Prints {folder: how often the host waited for the device} as its last line.

In a process of its own: a device is registered once and for all.
"""

import json
import sys
import types
from pathlib import Path

import torch
from torch.utils import cpp_extension

import runner
from runner import ahead, build, knobs, networks

NAME = "emulated"
STEPS_AHEAD = 20


def registered(folder: str) -> types.ModuleType:
    torch.utils.rename_privateuse1_backend(NAME)
    source = Path(__file__).with_name("device.cpp")
    extension = cpp_extension.load(NAME, str(source), build_directory=folder, extra_cflags=["-O1", "-w"])
    module = types.ModuleType(f"torch.{NAME}")
    module.is_available = lambda: True
    module.device_count = lambda: 1
    module.current_device = lambda: 0
    module._is_in_bad_fork = lambda: False
    module.manual_seed_all = lambda seed: None
    module.get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend()
    return extension


def check_emulation() -> None:
    """Tensors of two devices do not go together, whether an operation is PyTorch's own or one that falls back."""
    there, here = torch.ones(3, device=NAME), torch.ones(3)
    for mix in (lambda: there + here, lambda: there @ here, lambda: torch.cat([there, here]), lambda: there.dot(here)):
        try:
            mix()
        except RuntimeError:
            continue
        raise AssertionError("tensors of two devices should not go together")


def known() -> None:
    """Make it a device of runs, one that works while the host does something else."""
    chosen = knobs.device_of
    for module in (knobs, build):
        module.device_of = lambda name, precision="fp32": (
            torch.device(name) if name == NAME else chosen(name, precision)
        )
    networks.AT_ONCE[NAME] = networks.AT_ONCE["cpu"]
    ahead.ASYNCHRONOUS = (NAME,)
    ahead.Pace.took = lambda pace, steps, seconds: setattr(pace, "_length", STEPS_AHEAD)


def main() -> None:
    extension = registered(sys.argv[1])
    check_emulation()
    known()
    waits = {}
    for folder, overrides in json.load(sys.stdin).items():
        before = extension.waits()
        runner.run([*overrides, f"device={NAME}", f"hydra.run.dir={folder}"])
        waits[folder] = extension.waits() - before
    print(json.dumps(waits))


if __name__ == "__main__":
    main()
