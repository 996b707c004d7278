"""Write a network for other software: ``python jobs/export.py --help``."""

import sys

from nucseg_ray.commands import export

if __name__ == "__main__":
    sys.exit(export(sys.argv[1:]))
