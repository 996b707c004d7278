"""Draw synthetic images or a plate: ``python jobs/synthesize.py --help``."""

import sys

from nucseg_ray.commands import synthesize

if __name__ == "__main__":
    sys.exit(synthesize(sys.argv[1:]))
