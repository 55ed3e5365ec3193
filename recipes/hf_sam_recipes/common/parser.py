"""Command lines whose mistakes are one line: a `ValueError` with the nearest known option."""

import argparse
from collections.abc import Iterable

from .names import did_you_mean


def unknown_option(name: str, known: Iterable[str], where: str) -> ValueError:
    """The error for an unknown option, with the nearest known name."""
    advice = did_you_mean(name, known, cutoff=0.5).rstrip() or "see --help for all options."
    return ValueError(f"{where}: unknown option {name!r}; {advice}")


def refuse_repeated(args: Iterable[str]) -> None:
    """
    Raises:
        `ValueError`: an option stands twice on a command line, of which one would silently go.
    """
    given = [arg.partition("=")[0][2:].replace("-", "_") for arg in args if arg.startswith("--") and arg != "--"]
    for name in given:
        opposite = f"no_{name}"
        if given.count(name) > 1 or opposite in given:
            both = name if given.count(name) > 1 else f"{name} and {opposite}"
            raise ValueError(f"command line: {both} given more than once; give it once, with the value that counts.")


class ScriptParser(argparse.ArgumentParser):
    """
    `ArgumentParser` for scripts: no abbreviated options (a typo must not match another option), and an error is a
    `ValueError` of one line instead of an exit after the whole usage.
    """

    def __init__(self, description: str):
        super().__init__(
            description=description,
            allow_abbrev=False,
            epilog="A mistake in the options is told in one line; --debug shows where it was found.",
        )

    def error(self, message: str):
        raise ValueError(message)

    def parse_known_args(self, args=None, namespace=None):
        refuse_repeated(args or ())
        return super().parse_known_args(args, namespace)

    def parse_args(self, args=None, namespace=None):
        options, extra = self.parse_known_args(args, namespace)
        if extra:
            if not extra[0].startswith("--"):
                raise ValueError(f"{extra[0]}: unexpected value; expected [--option value ...].")
            raise unknown_option(extra[0].lstrip("-").split("=")[0], self.option_names, where="command line")
        return options

    @property
    def option_names(self) -> list[str]:
        """The options that `--help` shows."""
        shown = (action for action in self._actions if action.help is not argparse.SUPPRESS)
        return [option.lstrip("-") for action in shown for option in action.option_strings]
