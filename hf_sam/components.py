"""What methods and perturbations have in common: each says in its own file what it is, costs and cannot do.

In goes a class, registered under a name; out come the choices of `SAMConfig`, the texts of `--help`, of the model card
and of the documentation, and the combinations that are refused.
"""

from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar

from .options import NoOptions, nearest


@dataclass(frozen=True)
class Description:
    """
    What is said of a method or a perturbation.

    Args:
        name (`str`): short, as the field calls it ("SAMPa").
        full_name (`str`): in words.
        story (`str`): one paragraph: what it does with a window, for readers who do not know it.
        citations (`tuple[str, ...]`): BibTeX entries of the papers behind it.
        gradients (`str`): gradients of a window for an update, in all. Of a perturbation: those that it needs itself.
        sequential (`str`): how many of them wait for each other, where a method uses several ranks at once.
        memory (`str`): tensors of the size of the trainable parameters that an update needs beside those of the stock
            Trainer. Of a perturbation: beside the displacement itself.
        state (`str`): the same, kept from one update to the next and saved in checkpoints.
        source (`str`): where the definition is taken from; says so where the rule is our own reading.
    """

    name: str
    full_name: str
    story: str
    citations: tuple[str, ...] = ()
    gradients: str = "0"
    sequential: str = ""
    memory: str = "0"
    state: str = "0"
    source: str = ""


@dataclass(frozen=True)
class Conflict:
    """
    A combination that cannot work.

    Args:
        option (`str`): the other option as a user writes it; `{}` stands for the value that was found.
        found (`Callable`): takes a [`~hf_sam.setting.Setting`]; returns the value found, or something false.
        instead (`str`): what to use instead.
        why (`str`, *optional*): the reason, beginning with "since" or "which".
        under (`str`, *optional*): the condition, such as "on several ranks".
        kind (`str`, *optional*): what the documentation writes for `option` where that is nothing but the value.
    """

    option: str
    found: Callable[[Any], Any]
    instead: str
    why: str = ""
    under: str = ""
    kind: str = ""

    def message(self, named: str, value: Any) -> str:
        under = f" {self.under}" if self.under else ""
        why = f", {self.why}" if self.why else ""
        return f"{named}{under} cannot be combined with {self.option.format(value)}{why}: {self.instead}."


class Component(ABC):
    """A method or a perturbation, before it is asked to do anything."""

    description: ClassVar[Description]
    #: A dataclass of fields made with `hf_sam.options.option`.
    options_class: ClassVar[type] = NoOptions
    #: Combinations that cannot work, beside those that no method works with.
    conflicts: ClassVar[tuple[Conflict, ...]] = ()

    @classmethod
    def citations(cls, config: Any) -> tuple[str, ...]:
        """BibTeX entries to cite for a run with `config`."""
        return cls.description.citations


class Registry(Mapping[str, type]):
    """
    Name -> class, in the order of registration.

    Args:
        kind (`str`): "method" or "perturbation".
        base (`type`): the class that all of them derive from.
    """

    def __init__(self, kind: str, base: type[Component]):
        self.kind, self.base = kind, base
        self._classes: dict[str, type] = {}

    def __getitem__(self, name: str) -> type:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def register(self, name: str, component: type | None = None) -> Any:
        """
        Make `component` known as `name`; without it, a decorator.

        Raises:
            `ValueError`: the name is no string or is taken, or the class does not derive from the base class, has no
                `description`, or has options that are no dataclass.
        """
        if component is None:
            return lambda decorated: self.register(name, decorated)
        if not isinstance(name, str) or not name:
            raise ValueError(f"register_{self.kind}: name={name!r}: must be a string that is not empty.")
        if self._classes.get(name, component) is not component:
            raise ValueError(f"register_{self.kind}: {name!r} is taken by {self._classes[name].__name__}.")
        if not (isinstance(component, type) and issubclass(component, self.base)):
            raise ValueError(f"register_{self.kind}: {component!r} must derive from {self.base.__name__}.")
        if not isinstance(getattr(component, "description", None), Description):
            raise ValueError(f"register_{self.kind}: {component.__name__}.description must be a Description.")
        if not is_dataclass(component.options_class):
            raise ValueError(f"register_{self.kind}: {component.__name__}.options_class must be a dataclass.")
        self._classes[name] = component
        return component

    def require(self, place: str, name: Any) -> type:
        """
        The class called `name`.

        Raises:
            `ValueError`: there is none; the message begins with `place` and has the nearest name and all names.
        """
        if not isinstance(name, str) or name not in self._classes:
            advice = nearest(name, self._classes).replace("There are", "must be one of")
            raise ValueError(f"{place}={name!r}: {advice} Others have to be made known with register_{self.kind}.")
        return self._classes[name]

    def overview(self) -> str:
        """One line for `--help`: every name with its full name."""
        return "; ".join(f"{name!r}: {component.description.full_name}" for name, component in self.items())

    def options_overview(self) -> str:
        """For `--help`: the options that each has of its own, with their defaults."""
        told = []
        for name, component in self.items():
            options = asdict(component.options_class())
            helps = {entry.name: entry.metadata.get("help", "") for entry in fields(component.options_class)}
            told += [f"{name!r}: {option} = {value!r}, {helps[option]}" for option, value in options.items()]
        return "; ".join(told) or "None has any"
