"""The exceptions that one room raises and another tells from the rest."""


class InputError(ValueError):
    """What was given cannot be used: one sentence that names the file or option and says what to do.

    The command line prints the sentence and exits with code 2; a program catches it as a ``ValueError``.
    """


class NonFiniteError(ValueError):
    """A network returned infinities or NaN."""
