"""The one error that a user causes and can mend."""


class BadInput(ValueError):
    """Input that was refused before any work: says which key or file, what was required, what was found, what to do."""
