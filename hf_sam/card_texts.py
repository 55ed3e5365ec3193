"""The fixed texts of a model card: how each method is explained and cited, and the Hub's names of metrics."""

from dataclasses import dataclass


SAM_BIBTEX = """@inproceedings{foret2021sharpness,
    title     = {Sharpness-Aware Minimization for Efficiently Improving Generalization},
    author    = {Foret, Pierre and Kleiner, Ariel and Mobahi, Hossein and Neyshabur, Behnam},
    booktitle = {International Conference on Learning Representations},
    year      = {2021},
    url       = {https://arxiv.org/abs/2010.01412}
}"""
SAMPA_BIBTEX = """@inproceedings{xie2024sampa,
    title     = {{SAMPa}: Sharpness-aware Minimization Parallelized},
    author    = {Xie, Wanyun and Pethick, Thomas and Cevher, Volkan},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = {2024},
    url       = {https://arxiv.org/abs/2410.10683}
}"""
MSAM_BIBTEX = """@article{behdin2023msam,
    title   = {{mSAM}: Micro-Batch-Averaged Sharpness-Aware Minimization},
    author  = {Behdin, Kayhan and Song, Qingquan and Gupta, Aman and Keerthi, Sathiya and Acharya, Ayan and
               Ocejo, Borja and Dexter, Gregory and Khanna, Rajiv and Durfee, David and Mazumder, Rahul},
    journal = {arXiv preprint arXiv:2302.09693},
    year    = {2023}
}"""


@dataclass(frozen=True)
class MethodText:
    """How a method is named and explained, the options that it uses, and the papers behind it."""

    name: str
    story: str
    options: tuple[str, ...]
    bibtex: tuple[str, ...]


METHOD_TEXTS = {
    "sam": MethodText(
        name="SAM",
        story="Sharpness-aware minimization (SAM) looks for weights whose whole neighbourhood has a low loss. For "
        "each update it takes the gradient at the worst point, to first order, of a ball of radius rho around the "
        "weights, and the optimizer steps with that gradient from the weights themselves.",
        options=("rho", "ascent_scope", "same_dropout_mask"),
        bibtex=(SAM_BIBTEX,),
    ),
    "sampa": MethodText(
        name="SAMPa",
        story="SAMPa is sharpness-aware minimization (SAM), which looks for weights whose whole neighbourhood has a "
        "low loss, with its two gradients made independent of each other, so that they can be computed at the same "
        "time. The perturbation comes from a gradient at lookahead weights, and lambda weighs that gradient in the "
        "update.",
        options=("rho", "sampa_lambda", "lookahead", "same_dropout_mask"),
        bibtex=(SAMPA_BIBTEX, SAM_BIBTEX),
    ),
}
OPTION_LABELS = {
    "rho": "rho (radius of the perturbation)",
    "sampa_lambda": "lambda (weight of the lookahead gradient)",
}

VALUE_TEXTS = {
    ("ascent_scope", "rank"): "each rank perturbs along the gradient of its own data",
    ("ascent_scope", "global"): "all ranks perturb along the gradient of all data",
    ("ascent_scope", "micro_batch"): "each micro-batch has a perturbation of its own",
    ("lookahead", "optimizer"): "lookahead weights from a trial step of the optimizer",
    ("lookahead", "gradient"): "lookahead weights from a plain gradient step",
}

# Metrics as the Hub names them (the ids at hf.co/metrics), by the names that evaluation code gives them.
HUB_METRICS = {
    **{
        name: name
        for name in ("accuracy", "bleu", "exact_match", "f1", "matthews_correlation", "pearsonr", "precision")
    },
    **{name: name for name in ("recall", "rouge", "sacrebleu", "spearmanr", "wer")},
    "pearson": "pearsonr",
    "spearman": "spearmanr",
    "rouge1": "rouge",
    "top5_accuracy": "accuracy",
}
# Written otherwise than the name in the evaluation code.
METRIC_TITLES = {"top5_accuracy": "Top-5 Accuracy"}
