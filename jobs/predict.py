"""Segment a plate or a folder of images: ``python jobs/predict.py --help``."""

import sys

from nucseg_ray.commands import predict

if __name__ == "__main__":
    sys.exit(predict(sys.argv[1:]))
