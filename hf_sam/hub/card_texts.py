"""The fixed texts of a model card: how shared options are explained, and the Hub's names of metrics."""

OPTION_LABELS = {
    "rho": "rho (radius of the perturbation)",
    "sampa_lambda": "lambda (weight of the lookahead gradient)",
    "perturb_modules": "weights that are perturbed (! leaves out)",
    "rho_end": "rho at the end of its schedule",
    "rho_warmup": "updates over which rho grows from 0",
    "start": "first update that perturbs",
    "end": "first update that no longer perturbs",
    "every": "updates from one that perturbs to the next",
    "probability": "share of these updates that perturbs, drawn at random",
    "ascent_fraction": "part of a batch that the ascent gradient is taken of",
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
