"""Where ``ray job submit`` runs a command: in a copy of the working directory, which is deleted with the job."""

from __future__ import annotations

import os

from nucseg_ray.config import Settings
from nucseg_ray.errors import UsageError
from nucseg_ray.storage.locations import is_relative

# Ray's job manager sets it for the command that was submitted, and for nothing else.
_OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def refuse_vanishing_output(settings: Settings) -> None:
    """Check that the results of a submitted job outlive it; elsewhere any ``output`` will do.

    Raises
    ------
    UsageError
        ``output`` is a relative path.
    """
    output = getattr(settings, "output", None)
    if _OF_A_JOB in os.environ and output is not None and is_relative(output):
        raise UsageError(
            f"--output {output}: a submitted job runs in a copy of the working directory that is deleted with the job, "
            "and a relative path would vanish with it; give an absolute path that every node sees, or a URI such as "
            "s3://bucket/folder"
        )


def with_hint(message: str) -> str:
    """Add to an error about a file in the copy that most files of the working directory are not there."""
    if _OF_A_JOB not in os.environ or f"{os.getcwd()}{os.sep}" not in message:
        return message
    return (
        f"{message} [a submitted job looks for relative paths in the uploaded copy of the working directory, which "
        "holds the source and little else (.rayignore says what): give an absolute path that every node sees, or a URI]"
    )
