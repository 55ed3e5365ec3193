"""What the runner and the report need to know of a benchmark: its tasks, its recipes, what others publish on it."""

from dataclasses import dataclass

from .. import REPOSITORY
from ..common.names import require_known


@dataclass(frozen=True)
class BenchmarkTask:
    """
    One task of a benchmark.

    Args:
        name (`str`): Name of the folder with its recipes.
        title (`str`): Name for readers.
        metric (`str`): The metric that is compared, without `eval_`. Higher is better; at most 1.
        metric_title (`str`): The metric for readers.
        train_size, eval_size (`int`): Examples in the official training and evaluation splits. A run with fewer is
            reported as one on a subset.
        published (`str`, *optional*): What others report for the baseline; the benchmark says with which model.
        published_difference (`str`, *optional*): What others report for SAM minus the baseline.
    """

    name: str
    title: str
    metric: str
    metric_title: str
    train_size: int
    eval_size: int
    published: str = ""
    published_difference: str = ""


@dataclass(frozen=True)
class Benchmark:
    """
    A benchmark.

    Args:
        title (`str`): Name for readers.
        folder (`str`): Folder of the studies, the records and the report, relative to the repository.
        script (`str`): Recipe script, relative to the repository. It has a `main(args, trainer_class)` that returns
            the metrics of the last evaluation.
        options (`str`): Module whose `ARGUMENTS` are the dataclasses with the options of the script. By name, since
            it is slow to import, and the report does without.
        recipes (`str`): Folder with `<task>/<method>.yaml`, relative to the repository.
        tasks (`tuple[BenchmarkTask, ...]`): In the order of the report.
        methods (`tuple[str, ...]`): The methods that a full table has, the baseline first.
        equal_compute (`str`): The baseline with as many gradients as the methods that perturb.
        published_by, published_difference_by (`str`): Heading of the columns with what others publish; names the
            model.
    """

    title: str
    folder: str
    script: str
    options: str
    recipes: str
    tasks: tuple[BenchmarkTask, ...]
    methods: tuple[str, ...]
    equal_compute: str = ""
    published_by: str = ""
    published_difference_by: str = ""

    @property
    def baseline(self) -> str:
        return self.methods[0]

    def recipe(self, task: str, method: str) -> str:
        """
        Path of a recipe, relative to the repository.

        Raises:
            `ValueError`: there is no such task or no such method; the message has the nearest name and all names.
        """
        require_known("task", task, [known.name for known in self.tasks])
        folder = REPOSITORY / self.recipes / task
        require_known("method", method, sorted(file.stem for file in folder.glob("*.yaml")))
        return f"{self.recipes}/{task}/{method}.yaml"
