"""Every error that nucseg_ray raises on purpose.

The tree; each class is also the builtin that a caller would expect::

    NucsegError
    ├── UsageError (ValueError)          a wrong flag, setting or call
    ├── InputError (ValueError)          something about the data that was given
    │   ├── MissingInputError (FileNotFoundError)
    │   ├── DecodeError                  a file that is not the image it claims to be
    │   ├── ChoiceError                  a file that does not hold what was asked for, or leaves open what it holds
    │   └── NamingError                  file names that contradict each other
    ├── OutputError (OSError)            the output cannot be written or may not be touched
    │   ├── OutputBusyError              another run holds it
    │   └── OutputMismatchError          it was made with other settings
    └── ModelError (ValueError)          a bundle that is broken, altered or of another version
        └── WeightsError                 weights that cannot be had or do not fit

A message names the site or file, what was expected, what was found, and the remedy. The jobs print it as one
line and end with code 2.
"""


class NucsegError(Exception):
    """Base of all errors of this package."""


class UsageError(NucsegError, ValueError):
    """A flag, setting or call is wrong."""


class InputError(NucsegError, ValueError):
    """The data that was given cannot be used."""


class MissingInputError(InputError, FileNotFoundError):
    """A file or folder that was named, or that must be there, is missing."""

    def __str__(self) -> str:
        """Return the message alone; ``OSError`` would print its own form."""
        return str(self.args[0]) if self.args else ""


class DecodeError(InputError):
    """The bytes are not an image that can be read."""


class ChoiceError(InputError):
    """A file is in order and does not hold what was asked for, or holds more and nothing says which is meant."""


class NamingError(InputError):
    """File names contradict each other or cannot be understood."""


class OutputError(NucsegError, OSError):
    """The output cannot be written."""

    def __str__(self) -> str:
        """Return the message alone; ``OSError`` would print its own form."""
        return str(self.args[0]) if self.args else ""


class OutputBusyError(OutputError):
    """Another run is writing to the output."""


class OutputMismatchError(OutputError):
    """The output was made with another model, other settings or another format."""


class ModelError(NucsegError, ValueError):
    """A model bundle is broken, was altered, or is of a version that this package does not know."""


class WeightsError(ModelError):
    """Weights cannot be had, or do not fit the network."""
