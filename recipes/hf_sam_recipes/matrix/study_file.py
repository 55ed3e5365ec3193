"""A study as a file: what is asked, of which runs, with which settings. Knows neither recipes nor records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..common.mappings import BASE_KEY, NO_VALUE, read_mapping
from ..common.names import require_known


Options = dict[str, Any]
# Keys of a study that say what is measured at the end of a run.
MEASURED = ("sharpness_examples", "ascent_steps", "hessian_iterations")
# In the folder of a benchmark.
STUDIES, RESULTS = "studies", "results"


@dataclass(frozen=True)
class Choice:
    """
    How one option is chosen, for each task, on held-out training examples: an entry of `choose`.

    Args:
        option (`str`): `rho`, `learning_rate` or any other option of the recipes.
        values (`tuple[str, ...]`): What is tried.
        method (`str`): The method that it is tried with.
        methods (`tuple[str, ...]`): The methods that get what is chosen. In the file: `for`.
        seed (`int`, *optional*, defaults to 1): Of the trials.
        options (`dict`, *optional*): What the trials do in another way than the study.
        records (`str`): Folder of their records, relative to that of the benchmark. Defaults to
            `choices/<study>/<method>`.
    """

    option: str
    values: tuple[str, ...]
    method: str
    methods: tuple[str, ...]
    seed: int
    options: Options
    records: str

    def trial(self, task: str, value: str) -> str:
        """Name of the record of a trial."""
        return f"{task}/{self.option}-{value}/seed-{self.seed}"


@dataclass(frozen=True)
class StudyFile:
    """
    A study.

    Args:
        name (`str`): Name of the file, without `.yaml`.
        title, question (`str`): For readers.
        model (`str`): On the Hub, or a folder of the repository.
        tasks, methods (`dict[str, dict]`): The options that only they have, by name. In the file, names alone will do.
            A method is a recipe of that name, or of the name that its `recipe` has.
        seeds (`tuple[int, ...]`): The same for every task and method.
        epochs (`float`, *optional*): Of the baseline; a recipe that trains for twice as many does so here. Defaults to
            those of the recipes.
        options (`dict`, *optional*): Options of the recipes, for every run. Those of a task beat them, those of a
            method beat both, and `null` means the recipe's own.
        sharpness_examples, ascent_steps, hessian_iterations (`int`, *optional*): See `train_and_measure`.
        nproc_per_node (`int`, *optional*, defaults to 1): Processes for methods that run in pairs, 1 or 2.
        choose (`tuple[Choice, ...]`, *optional*): How options are chosen.
        choose_as (`StudyFile`, *optional*): The study whose choices these are. In the file, its name as `choose`.
        notes (`str`, *optional*): What a reader must know, in Markdown.
        overrides (`dict`): Beats everything else. Not in the file.
    """

    name: str
    title: str
    question: str
    model: str
    tasks: dict[str, Options]
    methods: dict[str, Options]
    seeds: tuple[int, ...]
    epochs: float | None = None
    options: Options = field(default_factory=dict)
    sharpness_examples: int = 64
    ascent_steps: int = 5
    hessian_iterations: int = 20
    nproc_per_node: int = 1
    choose: tuple[Choice, ...] = ()
    choose_as: StudyFile | None = None
    notes: str = ""
    overrides: Options = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        return Path(self.model).name

    def recipe(self, method: str) -> str:
        return self.methods[method].get("recipe", method)

    def options_of(self, task: str, method: str) -> Options:
        """The options of the runs of a task with a method, but for what is chosen, by name."""
        options = {**self.options, **self.tasks[task], **self.methods[method], **self.overrides}
        return {k: v for k, v in sorted(options.items()) if k != "recipe" and v not in NO_VALUE}

    def settings(self, task: str, method: str, chosen: Options) -> dict[str, Any]:
        """What a record says of how its run was set; rho has a place of its own in it."""
        options = self.options_of(task, method) | {k: v for k, v in chosen.items() if k != "rho"}
        return {
            "model": self.model_name,
            "epochs": self.epochs,
            **{name: getattr(self, name) for name in MEASURED},
            # Left out where it is 1, so that records made before it was noted can be added to.
            **({"nproc_per_node": self.nproc_per_node} if self.nproc_per_node > 1 else {}),
            "options": dict(sorted(options.items())),
        }

    def require_settings(self, record: dict[str, Any]) -> None:
        """
        Raises:
            `ValueError`: a record was made with other settings than the study has for its task and method now.
        """
        task, method, settings = record["task"], record["method"], record["meta_info"]["settings"]
        of_method = [choice.option for _, choice in self.choices() if method in choice.methods]
        chosen = {option: settings["options"][option] for option in of_method if option in settings["options"]}
        wanted = self.settings(task, method, chosen)
        if settings != wanted:
            raise ValueError(
                f"{self.name}: the record of {task} with {method} has different settings, {settings}, than the study, "
                f"{wanted}: such numbers must not share a table. Give the new settings a study of their own."
            )

    def choices(self) -> Iterator[tuple[StudyFile, Choice]]:
        """Every choice for one of the methods, with the study that its trials are runs of."""
        study = self.choose_as or self
        for choice in study.choose:
            if set(choice.methods) & set(self.methods):
                # On the held-out examples alone, and how sharp a trial ends is nobody's question.
                overrides = {"holdout_beside": "null"} | choice.options | study.overrides
                measured = {name: getattr(StudyFile, name) for name in MEASURED} | {"sharpness_examples": 0}
                yield replace(study, overrides=overrides, **measured), choice

    def with_overrides(self, options: Options, epochs: float | None) -> StudyFile:
        """The study with other options in every run, those of the choices too. What is given is not chosen."""
        choose = tuple(choice for choice in self.choose if choice.option not in options)
        choose_as = self.choose_as and self.choose_as.with_overrides(options, epochs)
        return replace(self, overrides=options, epochs=epochs or self.epochs, choose=choose, choose_as=choose_as)

    def part(self, tasks: Sequence | None, methods: Sequence | None, seeds: Sequence | None) -> StudyFile:
        """
        Only these tasks, methods and seeds, in the order of the study; what is chosen is chosen as in all of it.

        Raises:
            `ValueError`: the study lacks one of them.
        """
        parts = {}
        for key, wanted in (("tasks", tasks), ("methods", methods), ("seeds", seeds)):
            there = getattr(self, key)
            for name in wanted or ():
                require_known(f"{self.name}: {key}", str(name), map(str, there))
            names = [name for name in there if wanted is None or name in wanted]
            parts[key] = {name: there[name] for name in names} if isinstance(there, dict) else tuple(names)
        return replace(self, **parts, choose=(), choose_as=self.choose_as or self)


def find_study(folder: Path, name: str) -> StudyFile:
    """
    The study of that name in a folder, or at that path if the name ends in `.yaml`.

    Raises:
        `ValueError`: there is no such study; the message has the nearest name. Or as [`read_study`].
    """
    if name.endswith(".yaml"):
        return read_study(Path(name))
    require_known("study", name, sorted(path.stem for path in folder.glob("*.yaml")))
    return read_study(folder / f"{name}.yaml")


def read_study(path: Path) -> StudyFile:
    """
    Read a study from a YAML file. What its `base` says, a file relative to it, holds where the study says nothing;
    `options` and `notes` of both are put together.

    Raises:
        `ValueError`: a key is unknown (the message has the nearest), missing or of the wrong kind, or a choice has no
            held-out examples or is for a method that the study lacks.
    """
    values = _with_base(path)
    choose = values.pop("choose", ())
    given = {"choose_as": find_study(path.parent, choose)} if isinstance(choose, str) else {}
    if not isinstance(choose, str | list | tuple):
        raise ValueError(f"{path}: choose {choose!r} must be a list, or the name of a study.")
    study = _build(StudyFile, values, str(path), {}, name=path.stem, overrides={}, **given)
    _check_numbers(study, path)
    if study.nproc_per_node not in (1, 2):
        raise ValueError(f"{path}: nproc_per_node={study.nproc_per_node}: must be 1 or 2.")
    if study.choose_as:
        for task in study.tasks:
            require_known(f"{path}: {study.choose_as.name} has chosen nothing for task", task, study.choose_as.tasks)
        return study
    return replace(study, choose=tuple(_choice(study, entry, f"{path}, choose") for entry in choose))


def _check_numbers(study: StudyFile, path: Path) -> None:
    for name in ("tasks", "methods", "seeds"):
        if not getattr(study, name):
            raise ValueError(f"{path}: {name} must have at least one entry.")
    if len(set(study.seeds)) < len(study.seeds) or min(study.seeds) < 0:
        raise ValueError(f"{path}: seeds {list(study.seeds)} must be from 0, each of them once.")
    if study.epochs is not None and not 0 < study.epochs < math.inf:
        raise ValueError(f"{path}: epochs {study.epochs} must be above 0, and finite; leave it out for the recipes'.")
    for name in MEASURED:
        if getattr(study, name) < 0:
            raise ValueError(f"{path}: {name} {getattr(study, name)} must be at least 0.")


def _choice(study: StudyFile, entry: Any, where: str) -> Choice:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: {entry!r} must be a mapping with option, values, with, for.")
    entry = {"seed": "1", "options": {}, "records": f"choices/{study.name}/{entry.get('with')}"} | entry
    choice = _build(Choice, entry, where, {"method": "with", "methods": "for"})
    for method in (choice.method, *choice.methods):
        require_known(f"{where}: method", method, study.methods)
    if (study.options | choice.options).get("holdout", "") in NO_VALUE:
        raise ValueError(
            f"{where}: {choice.option} is chosen on held-out training examples, never on those that are reported: "
            "give it options with a holdout."
        )
    return choice


def _with_base(path: Path, _above: tuple[Path, ...] = ()) -> Options:
    path = path.resolve()
    if path in _above:
        raise ValueError(f"{path}: the file is its own {BASE_KEY}, by way of {_above[-1]}.")
    own = read_mapping(path)
    if BASE_KEY not in own:
        return own
    name = own.pop(BASE_KEY)
    if not isinstance(name, str):
        raise ValueError(f"{path}: {BASE_KEY} {name!r} must be the path of a file.")
    base = _with_base(path.parent / name, (*_above, path))
    for key, kind in (("options", dict), ("notes", str)):
        # What is neither is refused with the other keys.
        if isinstance(base.get(key), kind) and isinstance(own.get(key), kind):
            own[key] = base[key] | own[key] if key == "options" else f"{base[key].strip()}\n{own[key]}"
    return base | own


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise TypeError
    return tuple(value)


def _mapping(value: Any) -> Options:
    return {} if value in NO_VALUE else dict(value)


def _named(value: Any) -> dict[str, Options]:
    named = value if isinstance(value, dict) else dict.fromkeys(_texts(value), "")
    return {name: _mapping(own) for name, own in named.items()}


# By the annotation of a field: how what the file says is read, and what it must be.
KINDS = {
    "str": (lambda value: "".join(_texts([value])), "text"),
    "int": (int, "a whole number"),
    "float | None": (float, "a number"),
    "tuple[str, ...]": (_texts, "a list"),
    "tuple[int, ...]": (lambda value: tuple(map(int, _texts(value))), "a list of whole numbers"),
    "Options": (_mapping, "a mapping from options to values"),
    "dict[str, Options]": (_named, "a list of names, or a mapping from names to options"),
}


def _build(kind: type, values: Options, where: str, keys: Mapping[str, str], **given: Any) -> Any:
    """An instance of a dataclass from what stands in a file, where some fields have other names (`keys`)."""
    known = {keys.get(f.name, f.name): f for f in fields(kind) if f.type in KINDS and f.name not in given}
    for key, value in values.items():
        require_known(f"{where}: key", key, known)
        convert, expected = KINDS[known[key].type]
        try:
            given[known[key].name] = convert(value)
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"{where}: {key} {value!r} must be {expected}.") from None
    needed = {key for key, f in known.items() if f.default is f.default_factory is MISSING}
    if needed - values.keys():
        raise ValueError(f"{where}: {', '.join(sorted(needed - values.keys()))} missing.")
    return kind(**given)
