"""Checks that several data sets share."""

from runner.errors import BadInput


def at_least(least: int, **sizes: int) -> None:
    """Refuses those of a data set's integer keys that are below `least`."""
    for key, found in sizes.items():
        if found < least:
            raise BadInput(f"dataset.{key} should be at least {least}, found {found}.")
