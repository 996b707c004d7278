"""Find cell nuclei in microscope images, on a laptop or on a Ray cluster.

In a notebook: ``Segmenter.load().segment(image)`` gives the label image, without Ray.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Segmenter", "__version__"]

if TYPE_CHECKING:
    from nucseg_ray.model.segmenter import Segmenter
else:

    def __getattr__(name: str) -> Any:
        """Load ``Segmenter`` when it is asked for: the package by itself loads nothing heavy."""
        if name != "Segmenter":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from nucseg_ray.model.segmenter import Segmenter

        return Segmenter


def __dir__() -> list[str]:
    """List what can be had, loaded or not."""
    return sorted({*globals(), *__all__})
