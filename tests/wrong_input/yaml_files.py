"""Wrong YAML files of recipes."""

from ..recipes.mistakes import MRPC


GLUE, CIFAR = "recipes/run_glue.py", "recipes/run_cifar.py"
RIGHT = f"base: {MRPC}\n"


def wrong(text: str | bytes, **others: str):
    def make(tmp, places):
        content = text.encode() if isinstance(text, str) else text
        (tmp / "wrong.yaml").write_bytes(content)
        for name, other in others.items():
            (tmp / f"{name}.yaml").write_text(other)

    return make


# Script, what is written, what the line must say.
CASES = [
    (GLUE, wrong(RIGHT + "rhoo: 0.1\n"), r"wrong\.yaml: unknown option 'rhoo'; did you mean 'rho'"),
    (CIFAR, wrong(RIGHT + "crop_paddin: 1\n"), r"wrong\.yaml: unknown option 'crop_paddin'; did you mean"),
    (GLUE, wrong(RIGHT + "rho: 0.1\nrho: 0.2\n"), r"wrong\.yaml: rho given more than once"),
    (GLUE, wrong(RIGHT + "rho: [0.1\n"), r"wrong\.yaml: not a YAML file: .* line"),
    (GLUE, wrong(RIGHT + "\trho: 0.1\n"), r"wrong\.yaml: not a YAML file: .* line 2"),
    (GLUE, wrong(""), r"wrong\.yaml: must hold lines of the form"),
    (GLUE, wrong("- rho\n- 0.1\n"), r"wrong\.yaml: must hold lines of the form"),
    (GLUE, wrong("rho"), r"wrong\.yaml: must hold lines of the form"),
    (GLUE, wrong("rho=0.1\n"), r"wrong\.yaml: must hold lines of the form"),
    (GLUE, wrong(b"rho: 0.1 # \xe9\n"), r"wrong\.yaml: not a YAML file: .*utf-8"),
    (GLUE, wrong(b"rho: 0.1\x00\n"), r"wrong\.yaml: not a YAML file"),
    (GLUE, wrong("rho: 0.1\n---\nrho: 0.2\n"), r"wrong\.yaml: not a YAML file"),
    (GLUE, wrong("rho: *gone\n"), r"wrong\.yaml: not a YAML file: .*gone"),
    (GLUE, wrong("? [rho]\n: 0.1\n"), r"wrong\.yaml: not a YAML file"),
    (GLUE, wrong("rho: " + "[" * 3000), r"wrong\.yaml: not a YAML file"),
    (GLUE, wrong("base: wrong.yaml\n"), r"wrong\.yaml: the file is its own base"),
    (GLUE, wrong("base: other.yaml\n", other="base: wrong.yaml\n"), r"wrong\.yaml: the file is its own base"),
    (GLUE, wrong("base: gone.yaml\n"), r"gone\.yaml: no such recipe file; the folder has: wrong\.yaml"),
    (GLUE, wrong("base: {a: b}\n"), r"wrong\.yaml: base .* must be the path of a file"),
    (GLUE, wrong("base: [[a.yaml]]\n"), r"wrong\.yaml: base .* must be the path of a file"),
    (GLUE, wrong("base: other.yaml\n", other="rhoo: 1\n"), r"other\.yaml: unknown option 'rhoo'"),
    (GLUE, wrong("rho: 0.1\n"), "required: --task_name"),
    (GLUE, wrong(RIGHT + "rho: [0.1, 0.2]\n"), "0.2"),
    (GLUE, wrong(RIGHT + "rho: {a: 1}\n"), "--rho: invalid float value"),
    (GLUE, wrong(RIGHT + "perturb_modules: [[a], [b]]\n"), r"wrong\.yaml: perturb_modules must be a list of values"),
    (GLUE, wrong(RIGHT + "method_args: [a]\n"), r"method_args='a': not JSON"),
    (GLUE, wrong(RIGHT + "method_args: {nu: 1}\n"), "of method 'sam': unknown option 'nu'"),
    (GLUE, wrong(RIGHT + "rho: 0,1\n"), "--rho: invalid float value: '0,1'"),
    (GLUE, wrong(RIGHT + "do_train: [yes]\nseed: x\n"), "--seed: invalid int value: 'x'"),
    (GLUE, wrong(RIGHT + "rho: 1e30\n"), r"SAMConfig\.rho=1e\+30"),
    (GLUE, lambda tmp, places: (tmp / "wrong.yaml").mkdir(), r"wrong\.yaml: no such recipe file"),
    (GLUE, lambda tmp, places: None, r"wrong\.yaml: no such recipe file; the folder has: no recipe"),
]
