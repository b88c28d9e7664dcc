"""Every claim about speed is a subcommand here; each prints a table and keeps a CSV below outputs/benchmark.

python scripts/benchmark.py train                          # the loop against plain PyTorch loops
python scripts/benchmark.py split --networks mlp resnet50_k1 --rounds 3
python scripts/benchmark.py SUBCOMMAND --help
"""

import argparse
from pathlib import Path

import torch
from benchmarks import growth, input, memory, pieces, probes, replicas, split, startup, train

COMMANDS = {
    "split": split,
    "replicas": replicas,
    "train": train,
    "pieces": pieces,
    "input": input,
    "startup": startup,
    "probes": probes,
    "growth": growth,
    "memory": memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        common(command)
        module.options(command)
        command.set_defaults(run=module.run)
    one = commands.add_parser("peak", help="the peak memory of one method of split, in this process")
    common(one)
    one.add_argument("network", choices=split.NETWORKS)
    one.add_argument("method")
    one.set_defaults(run=lambda options: print(split.peak(options.network, options.method, options.device)))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.run(options)


def common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmark"))


if __name__ == "__main__":
    main()
