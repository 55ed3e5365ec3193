"""One rank that knows the method and the perturbation from outside of the package."""

import sys
from pathlib import Path

import torch

from tests.distributed.worker import main
from tests.house import outside  # noqa: F401


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.destroy_process_group()
