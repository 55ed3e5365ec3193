"""Command lines put together from parts."""

from collections.abc import Iterable


def later_wins(words: Iterable[str]) -> list[str]:
    """Of an option that stands there twice, which a script refuses, the later one."""
    options: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word.partition("=")[0]
            options.pop(name, None)
        options.setdefault(name, []).append(word)
    return [word for words in options.values() for word in words]
