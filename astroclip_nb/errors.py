"""The one exception for bad input: its message is a sentence a user can act on."""


class InputError(ValueError):
    """A file or parameter is not what it should be; the message says which, how, and what to do."""
