"""What was meant by a wrong name."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.3) -> str:
    """`"did you mean 'sam'? "`, ready for another sentence, or nothing where no known name is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {nearest[0]!r}? " if nearest else ""


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """
    Raises:
        `ValueError`: the name is not known; the message has the nearest name and all names.
    """
    known = list(known)
    if name not in known:
        raise ValueError(f"{what} {name!r}: {did_you_mean(name, known)}There are {', '.join(known) or 'none'}.")
