"""The errors that a user can mend."""


class BadInput(ValueError):
    """Input that was refused before any work: says which key or file, what was required, what was found, what to do."""


class CannotWrite(OSError):
    """A file of a run could not be written: says which, why, and what to do."""
