"""Train a nucleus segmentation model: ``python jobs/train.py --help``."""

import sys

from nucseg_ray.commands import train

if __name__ == "__main__":
    sys.exit(train(sys.argv[1:]))
