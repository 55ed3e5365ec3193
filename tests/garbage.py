"""The host collects garbage in every training run, which takes far longer than a tiny run does."""

import gc


def spare_what_is_imported() -> None:
    """What there is by now, mostly modules, is not looked at again by any collection of garbage in this process."""
    gc.collect()
    gc.freeze()
