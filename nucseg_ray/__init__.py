"""Find cell nuclei in microscope images, on a laptop or on a Ray cluster."""

__version__ = "0.1.0"
