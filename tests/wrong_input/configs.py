"""Wrong values of SAMConfig in Python, and wrong ways to hand it over."""

import math

from hf_sam import SAMConfig, SAMTrainer


def config(**options):
    return lambda: SAMConfig(**options)


def _third_positional():
    return SAMTrainer(None, None, SAMConfig())


# What is tried, how, what the error must say.
CASES = [
    ("rho='0.1'", config(rho="0.1"), r"SAMConfig\.rho='0.1': must be a finite number"),
    ("rho=None", config(rho=None), r"SAMConfig\.rho=None: must be a finite number"),
    ("rho=True", config(rho=True), r"SAMConfig\.rho=True: must be a finite number"),
    ("rho=[0.1]", config(rho=[0.1]), r"SAMConfig\.rho=\[0\.1\]: must be a finite number"),
    ("rho=1j", config(rho=1j), r"SAMConfig\.rho=1j: must be a finite number"),
    ("rho=10001", config(rho=10001), r"SAMConfig\.rho=10001: must be a finite number >= 0 and <= 10000"),
    ("rho=1e200", config(rho=1e200), r"SAMConfig\.rho=1e\+200: must be"),
    ("method=None", config(method=None), r"SAMConfig\.method=None: .*must be one of"),
    ("method=['sam']", config(method=["sam"]), r"SAMConfig\.method=\['sam'\]: .*must be one of"),
    ("method='SAM'", config(method="SAMP"), r"SAMConfig\.method='SAMP'"),
    ("perturbation=1", config(perturbation=1), r"SAMConfig\.perturbation=1: must be one of"),
    ("ascent_scope=None", config(ascent_scope=None), r"SAMConfig\.ascent_scope=None: must be one of"),
    ("lookahead=''", config(lookahead=""), r"SAMConfig\.lookahead='': must be one of"),
    ("same_dropout_mask=1", config(same_dropout_mask=1), r"SAMConfig\.same_dropout_mask=1: must be True or False"),
    ("sampa_lambda=nan", config(sampa_lambda=math.nan), r"SAMConfig\.sampa_lambda=nan: must be a number from 0 to 1"),
    ("every=True", config(every=True), r"SAMConfig\.every=True: must be a whole number"),
    ("every=2.0", config(every=2.0), r"SAMConfig\.every=2\.0: must be a whole number"),
    ("start='2'", config(start="2"), r"SAMConfig\.start='2': must be a whole number"),
    ("start=inf", config(start=math.inf), r"SAMConfig\.start=inf: must be a whole number"),
    ("end=-1", config(end=-1), r"SAMConfig\.end=-1: must be a whole number"),
    ("rho_warmup=None", config(rho_warmup=None), r"SAMConfig\.rho_warmup=None: must be a whole number"),
    (
        "perturb_modules='a'",
        config(perturb_modules="bert.*"),
        r"SAMConfig\.perturb_modules='bert\.\*': must be a list",
    ),
    ("perturb_modules=[]", config(perturb_modules=[]), r"SAMConfig\.perturb_modules=\[\]: must be a list"),
    ("perturb_modules=[1]", config(perturb_modules=[1]), r"SAMConfig\.perturb_modules=\[1\]: must be a list"),
    ("method_args=1", config(method_args=1), r"SAMConfig\.method_args=1: must be a mapping"),
    ("method_args={1: 2}", config(method_args={1: 2}), r"SAMConfig\.method_args=\{1: 2\}: must be a mapping"),
    (
        "looksam k=0",
        config(method="looksam", method_args={"k": 0}),
        r"SAMConfig\.method_args of method 'looksam'\['k'\]=0: must be a number >= 1",
    ),
    (
        "looksam k=2.5",
        config(method="looksam", method_args={"k": 2.5}),
        r"\['k'\]=2\.5: must be of type int, not float",
    ),
    ("gsam alpha nan", config(method="gsam", method_args={"alpha": math.nan}), r"\['alpha'\]=nan: must be"),
    (
        "asam eta",
        config(perturbation="asam", perturbation_args={"eta": -1}),
        r"\['eta'\]=-1\.0: must be a number >= 0",
    ),
    (
        "asam scaled",
        config(perturbation="asam", perturbation_args={"scaled": "weight"}),
        r"\['scaled'\]='weight': must be of type list",
    ),
    ("no JSON", config(perturbation_args="eta=1"), r"SAMConfig\.perturbation_args='eta=1': not JSON"),
    ("third positional of SAMTrainer", _third_positional, "sam_config: .*write sam_config=..."),
    ("sam_config={}", lambda: SAMTrainer(sam_config={"rho": 1}), r"sam_config=\{'rho': 1\}: must be a SAMConfig"),
]
