"""The one exception for what a person gave and can change."""


class InputError(ValueError):
    """What was given cannot be used: one sentence that names the file or option and says what to do.

    The command line prints the sentence and exits with code 2; a program catches it as a ``ValueError``.
    """
