"""Every test runs offline, on one thread, and starts from the same random numbers."""

import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
