"""Pack labelled images into a few large files: ``python jobs/pack.py --help``."""

import sys

from nucseg_ray.commands import pack

if __name__ == "__main__":
    sys.exit(pack(sys.argv[1:]))
