"""One file per training method. A new method is one file and one line here."""

from .base import Method
from .sam import SAM
from .sampa import SAMPa
from .stock import Stock


METHODS: dict[str, type[Method]] = {"none": Stock, "sam": SAM, "sampa": SAMPa}

__all__ = ["METHODS", "Method"]
