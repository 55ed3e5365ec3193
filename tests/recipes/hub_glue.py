"""Stands in for the Hub's `evaluate-metric/glue` script: a file that `evaluate.load` can load."""

import datasets
import evaluate


class Glue(evaluate.Metric):
    def _info(self):
        value = datasets.Value("int64")
        return evaluate.MetricInfo(
            description="",
            citation="",
            inputs_description="",
            features=datasets.Features({"predictions": value, "references": value}),
            format="numpy",
        )

    def _compute(self, predictions, references):
        return {"accuracy": float((predictions == references).mean()), "from_hub": self.config_name}
