"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): where they are, what their files and columns are called, their classes."""

from dataclasses import dataclass

from transformers import PretrainedConfig

from ..common.models import name_classes
from ..common.names import did_you_mean


@dataclass(frozen=True)
class CifarTask:
    """
    One data set.

    Args:
        name (`str`): How the recipes call it.
        title (`str`): How the literature calls it.
        hub_dataset (`str`): Name on the Hub.
        label_columns (`tuple[str, ...]`): Columns that may hold the class in parquet files, the Hub's first.
        folder (`str`): Name in the original archive.
        batches (`dict[str, tuple[str, ...]]`): Split -> original pickle files.
        labels (`tuple[str, ...]`): Class names in the order of the class indices.
    """

    name: str
    title: str
    hub_dataset: str
    label_columns: tuple[str, ...]
    folder: str
    batches: dict[str, tuple[str, ...]]
    labels: tuple[str, ...]

    def configure_head(self, config: PretrainedConfig, for_training: bool) -> None:
        """
        Write the classes into a model's configuration.

        Raises:
            `ValueError`: a model that is only to be evaluated has the classes in another order.
        """
        name_classes(config, self.labels, self.name, for_training)


# fmt: off
CIFAR100_LABELS = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
)
# fmt: on

TASKS = {
    task.name: task
    for task in (
        CifarTask(
            name="cifar10",
            title="CIFAR-10",
            hub_dataset="uoft-cs/cifar10",
            label_columns=("label", "labels"),
            folder="cifar-10-batches-py",
            batches={"train": tuple(f"data_batch_{part}" for part in range(1, 6)), "test": ("test_batch",)},
            labels=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        ),
        CifarTask(
            name="cifar100",
            title="CIFAR-100",
            hub_dataset="uoft-cs/cifar100",
            label_columns=("fine_label", "fine_labels", "label", "labels"),
            folder="cifar-100-python",
            batches={"train": ("train",), "test": ("test",)},
            labels=CIFAR100_LABELS,
        ),
    )
}


def find_task(name: str) -> CifarTask:
    """
    The data set with this name, in the recipes' spelling (`cifar10`) or the literature's (`CIFAR-10`).

    Raises:
        `ValueError`: there is no such data set; the message has the nearest name and all names.
    """
    key = name.lower().replace("-", "").replace("_", "")
    if key not in TASKS:
        raise ValueError(f"dataset_name={name!r}: {did_you_mean(key, TASKS)}The data sets are {', '.join(TASKS)}.")
    return TASKS[key]
