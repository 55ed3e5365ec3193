"""What a user writes as options of one method, and what an author registers: right, or one clear error."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from transformers import HfArgumentParser

from hf_sam import SAMConfig, catalog, register_method, register_perturbation
from hf_sam.methods import METHODS, Method
from hf_sam.options import option, read_options
from hf_sam.perturbations import PERTURBATIONS
from tests.house import outside


@dataclass(frozen=True)
class Options:
    eta: float = option(0.01, "offset", lower=0.0)
    keep: float = option(0.1, "share", lower=0.0, upper=1.0)
    interval: int = option(10, "updates", lower=1)
    form: Literal["f", "d"] = option("f", "which")
    names: list[str] = option([], "patterns")
    limit: float | None = option(None, "none is no limit")

    def __post_init__(self):
        if self.eta > self.keep:
            raise ValueError(f"eta={self.eta} is above keep={self.keep}: lower it.")


def test_read_from_a_mapping_from_json_and_from_nothing():
    assert read_options("x", Options, None) == read_options("x", Options, "") == Options()
    values = {"eta": 0.05, "interval": 3, "form": "d", "names": ["norm"], "limit": 2}
    expected = Options(0.05, 0.1, 3, "d", ["norm"], 2.0)
    assert read_options("x", Options, values) == read_options("x", Options, json.dumps(values)) == expected


WRONG = [
    ({"etta": 1}, r"x: unknown option 'etta'; did you mean 'eta'\?"),
    ({"zzz": 1}, r"x: unknown option 'zzz'; There are 'eta', 'keep'"),
    ({"eta": "much"}, r"x\['eta'\]='much': must be of type float, not str"),
    ({"eta": True}, r"x\['eta'\]=True: must be of type float, not bool"),
    ({"eta": -1}, r"x\['eta'\]=-1.0: must be a number >= 0"),
    ({"eta": float("nan")}, r"x\['eta'\]=nan: must be a number >= 0"),
    ({"keep": 1.5}, r"x\['keep'\]=1.5: must be a number from 0 to 1"),
    ({"interval": 2.5}, r"x\['interval'\]=2.5: must be of type int, not float"),
    ({"interval": 0}, r"x\['interval'\]=0: must be a number >= 1"),
    ({"form": "g"}, r"x\['form'\]='g'"),
    ({"names": "norm"}, r"x\['names'\]='norm': must be of type list\[str\], not str"),
    ({"eta": 0.5}, r"x: eta=0.5 is above keep=0.1: lower it"),
    ('{"eta": ', r"x='\{\"eta\": ': not JSON"),
    ("[1]", r"x=\[1\]: must be a mapping"),
    ({1: 2}, r"x=\{1: 2\}: must be a mapping"),
    (5, r"x=5: must be a mapping"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_wrong_options_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        read_options("x", Options, values)


def test_the_options_of_a_config_name_their_owner():
    with pytest.raises(ValueError, match=r"SAMConfig\.method_args of method 'halfway': unknown option 'shar'"):
        SAMConfig("halfway", method_args={"shar": 1})
    with pytest.raises(ValueError, match=r"SAMConfig\.perturbation_args of perturbation 'gradient'.*none to set"):
        SAMConfig(perturbation_args={"eta": 1})


def test_read_from_a_command_line_and_told_by_its_help():
    parser = HfArgumentParser(SAMConfig)
    words = ["--method", "halfway", "--method_args", '{"share": 0.75}', "--perturbation", "smoothed_sign"]
    (config,) = parser.parse_args_into_dataclasses(words)
    assert config.method_options == outside.HalfwayOptions(0.75)
    assert config.perturbation_options == outside.SmoothedSignOptions()
    for registry in (METHODS, PERTURBATIONS):
        helps = [action for action in parser._actions if action.choices is registry]
        assert len(helps) == 1
        for name in ("none", "sam", "sampa") if registry is METHODS else ("gradient",):
            assert registry[name].description.full_name in helps[0].help


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"SAMConfig\.method='sampaa': did you mean 'sampa'.*register_method"):
        SAMConfig("sampaa")
    with pytest.raises(ValueError, match=r"SAMConfig\.perturbation='gradiant': did you mean 'gradient'"):
        SAMConfig(perturbation="gradiant")


class Undescribed(Method):
    gradients_per_update = 1

    def window_gradient(self, engine, update):
        raise NotImplementedError


class BadOptions(Undescribed):
    description = outside.Halfway.description
    options_class = dict


@pytest.mark.parametrize(
    ("register", "name", "component", "message"),
    [
        (register_method, "sam", outside.Halfway, "'sam' is taken by SAM"),
        (register_method, "", outside.Halfway, "must be a string that is not empty"),
        (register_method, "x", outside.SmoothedSign, "must derive from Method"),
        (register_method, "x", outside.Halfway.description, "must derive from Method"),
        (register_method, "x", Undescribed, r"Undescribed\.description must be a Description"),
        (register_method, "x", BadOptions, r"BadOptions\.options_class must be a dataclass"),
        (register_perturbation, "x", outside.Halfway, "must derive from Perturbation"),
    ],
)
def test_a_wrong_registration_is_refused(register, name, component, message):
    with pytest.raises(ValueError, match=message):
        register(name, component)
    assert "x" not in METHODS
    assert "x" not in PERTURBATIONS


def test_registering_the_same_class_again_changes_nothing():
    assert register_method("halfway", outside.Halfway) is outside.Halfway


def test_a_file_of_0_1_0_still_loads(tmp_path):
    old = {"method": "sampa", "rho": 0.1, "sampa_lambda": 0.2, "ascent_scope": "rank", "lookahead": "optimizer"}
    (tmp_path / "sam_config.json").write_text(json.dumps(old | {"same_dropout_mask": True}))
    assert SAMConfig.from_pretrained(tmp_path) == SAMConfig("sampa", 0.1, 0.2)


def test_the_page_of_methods_is_made_from_the_code(monkeypatch):
    for registry in (METHODS, PERTURBATIONS):
        # What tests have registered is not part of the package.
        own = {name: cls for name, cls in registry.items() if cls.__module__.startswith("hf_sam.")}
        monkeypatch.setattr(registry, "_classes", own)
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == catalog.page(), "python -m hf_sam.catalog > docs/methods.md"
    for name, component in (*METHODS.items(), *PERTURBATIONS.items()):
        assert f"### `{name}`" in page
        assert component.description.story in page
