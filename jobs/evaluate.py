"""Score a model or masks: ``python jobs/evaluate.py --help``."""

import sys

from nucseg_ray.commands import evaluate

if __name__ == "__main__":
    sys.exit(evaluate(sys.argv[1:]))
