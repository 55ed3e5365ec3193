"""Mistakes of users, and the scripts in which they are made."""

from functools import partial

import demo
import demo_vit
import run_cifar
import run_glue
import run_measured
from hf_sam_recipes.benchmarks.cifar import CIFAR
from hf_sam_recipes.benchmarks.glue import GLUE
from hf_sam_recipes.matrix.command_line import run_main
from hf_sam_recipes.matrix.report import report_main

from ..command_lines import later_wins
from ..conftest import REPOSITORY


# What is typed -> what `run_script` gets there.
SCRIPTS = {
    "recipes/run_glue.py": run_glue.main,
    "recipes/run_cifar.py": run_cifar.main,
    "recipes/run_measured.py": run_measured.main,
    "recipes/demo.py": demo.main,
    "recipes/demo_vit.py": demo_vit.main,
    "glue_runs/run.py": partial(run_main, GLUE),
    "glue_runs/report.py": partial(report_main, GLUE),
    "cifar_runs/run.py": partial(run_main, CIFAR),
    "cifar_runs/report.py": partial(report_main, CIFAR),
}
MRPC, CIFAR10 = REPOSITORY / "recipes/glue/mrpc/sam.yaml", REPOSITORY / "recipes/cifar/cifar10/sam.yaml"
ON_GLUE = f"{MRPC} --data_dir {{glue}} --model_name_or_path {{model}} --output_dir {{new}} --use_cpu"
ON_CIFAR = f"{CIFAR10} --data_dir {{cifar}} --model_name_or_path {{model}} --output_dir {{new}} --use_cpu"


def typed(command: str, paths: dict) -> list[str]:
    """The words of a command line, with these paths; of an option that stands there twice, the later one."""
    return later_wins(word.format(**paths) for word in command.split())


# Kind of mistake, script, command line, what the line must say.
MISTAKES = [
    ("unknown option", "recipes/run_glue.py", f"{ON_GLUE} --rhoo 0.1", "'rhoo'; did you mean 'rho'"),
    ("unknown option", "recipes/run_cifar.py", f"{ON_CIFAR} --crop_pading 2", "'crop_pading'; did you mean 'crop_pad"),
    ("unknown option", "recipes/run_measured.py", "--recip run_glue", "--result_folder, --recipe"),
    ("unknown option", "recipes/demo.py", "--epoch 1", "'epoch'; did you mean 'epochs'"),
    ("unknown option", "glue_runs/run.py", "low-data --task cola", "'task'; did you mean 'tasks'"),
    ("unknown option", "glue_runs/run.py", "low-data --max_lenght 8", "'max_lenght'; did you mean 'max_length'"),
    ("unknown option", "cifar_runs/run.py", "clean --stats", "'stats'; did you mean 'status'"),
    ("unknown option", "glue_runs/report.py", "--foldr x", "'foldr'; did you mean 'folder'"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --rho much", "argument --rho: invalid float value: 'much'"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --rho=-1", r"SAMConfig\.rho=-1\.0: must be"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --task_name mrcp", "task_name='mrcp': did you mean 'mrpc'"),
    ("wrong value", "recipes/run_glue.py", f"{ON_GLUE} --label_noise 7", r"label_noise=7\.0: must be from 0 to 1"),
    (
        "wrong value",
        "recipes/run_glue.py",
        f"{ON_GLUE} --lr_scheduler_kwargs {{{{bad}}}}",
        "--lr_scheduler_kwargs: '{bad}' is not JSON",
    ),
    ("wrong value", "recipes/demo_vit.py", "--epochs 0", r"epochs=0\.0: must be above 0"),
    (
        "wrong value",
        "recipes/run_measured.py",
        "--recipe run_glu --result_folder {there}",
        "recipe='run_glu': no such",
    ),
    ("wrong value", "glue_runs/run.py", "low-dat", "study 'low-dat': did you mean 'low-data'"),
    ("wrong value", "cifar_runs/run.py", "clean --jobs 0 --folder {new}", "jobs=0: must be at least 1"),
    (
        "unknown key in YAML",
        "recipes/run_glue.py",
        "{misspelt}",
        r"misspelt\.yaml: unknown option 'rhoo'; did you mean",
    ),
    ("unknown key in YAML", "recipes/run_cifar.py", "{misspelt}", r"misspelt\.yaml: unknown option 'rhoo'; did you"),
    ("unknown key in YAML", "recipes/run_glue.py", "{broken}", r"broken\.yaml: not a YAML file: .* line 2"),
    ("unknown key in YAML", "glue_runs/run.py", "{misspelt}", r"misspelt\.yaml: key 'seed': did you mean 'seeds'"),
    ("missing file", "recipes/run_glue.py", "{there}/gone.yaml", r"gone\.yaml: no such recipe file"),
    ("missing file", "recipes/run_glue.py", f"{ON_GLUE} --data_dir {{gone}}", "data_dir='.*gone': no such folder"),
    ("missing file", "recipes/run_cifar.py", f"{ON_CIFAR} --data_dir {{there}}", "data_dir='.*': no train split of"),
    (
        "missing file",
        "recipes/run_glue.py",
        f"{ON_GLUE} --resume_from_checkpoint {{there}}",
        "resume_from_checkpoint='.*': no such checkpoint",
    ),
    ("missing file", "recipes/run_glue.py", f"{ON_GLUE} --output_dir {{broken}}/x", "output_dir='.*': cannot be made"),
    ("missing file", "recipes/demo.py", "--output_dir {broken}/x", "output_dir='.*': cannot be made"),
    ("missing file", "glue_runs/run.py", "low-data --data_dir {gone}", "data_dir='.*gone': no such folder"),
    ("missing file", "cifar_runs/run.py", "{gone}.yaml", r"gone\.yaml: cannot be read"),
    ("missing file", "cifar_runs/report.py", "--folder {gone}", "folder='.*gone': no such folder"),
    ("no model", "recipes/run_glue.py", f"{ON_GLUE} --model_name_or_path {{gone}}", "model_name_or_path='.*gone': no"),
    (
        "no model",
        "recipes/run_glue.py",
        f"{ON_GLUE} --model_name_or_path no/one",
        "name_or_path='no/one': .*Hub",
    ),
    (
        "no model",
        "recipes/run_cifar.py",
        f"{ON_CIFAR} --model_name_or_path {{there}}",
        "Unrecognized model in .*there",
    ),
    (
        "refused",
        "recipes/run_glue.py",
        f"{ON_GLUE} --method gsam --ascent_scope micro_batch",
        "method='gsam' cannot be combined with ascent_scope='micro_batch'",
    ),
    (
        "refused",
        "recipes/run_cifar.py",
        f"{ON_CIFAR} --do_train no --from_scratch",
        "from_scratch=True without do_train",
    ),
    ("refused", "glue_runs/run.py", "low-data --rho 1", "rho: low-data has it otherwise"),
    (
        "refused",
        "cifar_runs/run.py",
        "clean --seed 3 --folder {new}",
        "seed cannot be set for every run alike: use seeds",
    ),
]
