"""One module for each subcommand of scripts/benchmark.py: its options, and what it measures."""
