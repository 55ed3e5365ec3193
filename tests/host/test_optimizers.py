"""Every optimizer that TrainingArguments can name, as far as its package is here, and the trial step of SAMPa."""

import pytest
import torch
from transformers.training_args import OptimizerNames

from hf_sam import SAMConfig
from tests import harness, reference
from tests.host import setups


STEP_IN_BACKWARD = [name.value for name in OptimizerNames if "lomo" in name.value or name.value.endswith("_layerwise")]
STEP_FROM_GRAD = [name.value for name in OptimizerNames if name.value not in STEP_IN_BACKWARD]
ALWAYS_HERE = {"adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop"}


def run(name, folder, config):
    # The first five updates of RAdam without a schedule move nothing.
    arguments = {"optim": name, "num_train_epochs": 3 if name == "schedule_free_radam" else 1}
    if name.startswith(("galore", "apollo")):
        arguments["optim_target_modules"] = ["attention"]
    options = {"arguments": arguments, "data_collator": setups.collate_for_classification}
    return setups.train(setups.classifier(dropout=0.1), setups.sentences(32), folder, config, **options)


def stock_run(name, folder):
    try:
        return run(name, folder, None)
    except (ImportError, ValueError, RuntimeError, AssertionError) as error:
        if name in ALWAYS_HERE:
            raise
        pytest.skip(f"the host cannot use {name} here: {error}")


@pytest.mark.parametrize("name", STEP_FROM_GRAD)
def test_sam_works_with_the_optimizer_and_without_a_radius_is_the_stock_trainer(name, tmp_path):
    stock = stock_run(name, tmp_path)
    assert harness.same_bits(run(name, tmp_path, SAMConfig(rho=0.0))["weights"], stock["weights"])
    setups.assert_moved(run(name, tmp_path, setups.CONFIGS["sam"]), stock, least=1e-5)


@pytest.mark.parametrize("method", ["sam", "sampa-gradient"])
@pytest.mark.parametrize("name", STEP_IN_BACKWARD)
def test_an_optimizer_that_steps_in_the_backward_pass_is_refused(name, method, tmp_path):
    with pytest.raises(ValueError, match=rf"optim='{name}'.*backward.*optim='adamw_torch'"):
        run(name, tmp_path, setups.CONFIGS[method])


@pytest.mark.parametrize("name", STEP_FROM_GRAD)
def test_sampa_looks_ahead_by_a_step_of_the_optimizer_or_by_the_gradient(name, tmp_path):
    stock = stock_run(name, tmp_path)
    own, printed = (run(name, tmp_path, setups.CONFIGS[method]) for method in ("sampa", "sampa-gradient"))
    setups.assert_moved(own, stock, least=1e-5)
    setups.assert_moved(printed, stock, least=1e-5)
    if name != "sgd":  # Without momentum and with hardly any decay, it is the same.
        setups.assert_moved(own, printed, least=1e-7)


# ---- against the formulas ----

VARIANTS = {
    "adamw_torch": {},
    "adamw_torch_fused": {"optim": "adamw_torch_fused"},
    "other betas and eps": {"adam_beta1": 0.8, "adam_beta2": 0.95, "adam_epsilon": 1e-4},
}


def reference_run(folder, **options):
    w = harness.weights_of(harness.make_trainer(harness.Run(), folder).model)
    stream = reference.windows_of(harness.make_dataset(44), 2, shards=1, accumulation=1, batch_size=4)
    assert len(stream) == 22
    return reference.train_sampa(w, stream, 0.3, 0.1, after_the_last=stream[0], **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_lookahead_is_the_optimizers_own_step(variant, tmp_path):
    described = harness.Run(method="sampa", config={"rho": 0.3}, arguments=VARIANTS[variant])
    weights = harness.train(described, tmp_path)["weights"]
    plain, options = reference_run(tmp_path), {}
    if variant == "other betas and eps":
        options = {"betas": (0.8, 0.95), "eps": 1e-4}
        assert harness.largest_difference(weights, plain) > 1e-3
    # The fused kernel keeps its bias corrections in float32.
    tolerance = 1e-6 if variant == "adamw_torch_fused" else 1e-10
    assert harness.largest_difference(weights, reference_run(tmp_path, **options)) < tolerance


def train_with_groups(folder, rates, **options):
    """A user's own AdamW, with three parameter groups."""
    trainer = harness.make_trainer(harness.Run(method="sampa", config={"rho": 0.3}), folder)
    model = trainer.model
    groups = [
        {"params": [model.inner.weight], "lr": rates[0], "weight_decay": 0.1},
        {"params": [model.inner.bias, model.outer.bias], "lr": rates[1], "weight_decay": 0.0},
        {"params": [model.outer.weight], "lr": rates[2], "weight_decay": 0.1},
    ]
    trainer.optimizer = torch.optim.AdamW(groups, **options)
    trainer.train()
    return harness.weights_of(model)


@pytest.mark.parametrize("options", [{}, {"foreach": False}, {"fused": True}, {"amsgrad": True}, {"foreach": True}])
def test_a_users_own_parameter_groups_have_their_own_lookahead(options, tmp_path):
    expected = reference_run(tmp_path, amsgrad=options.get("amsgrad", False))
    tolerance = 1e-6 if "fused" in options else 1e-10
    assert harness.largest_difference(train_with_groups(tmp_path, [0.02] * 3, **options), expected) < tolerance
    assert harness.largest_difference(train_with_groups(tmp_path, [0.02, 0.005, 0.05], **options), expected) > 1e-3


def test_the_reference_with_amsgrad_is_another_one(tmp_path):
    assert harness.largest_difference(reference_run(tmp_path), reference_run(tmp_path, amsgrad=True)) > 1e-6


class Lomo(torch.optim.SGD):
    """By its name one that steps in the backward pass."""


@pytest.mark.parametrize("method", ["sam", "sampa", "sampa-gradient"])
@pytest.mark.parametrize("instance", [True, False], ids=["an instance", "a class"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [(torch.optim.LBFGS, "needs a closure"), (torch.optim.SparseAdam, "sparse"), (Lomo, "during the backward pass")],
)
def test_a_users_own_optimizer_that_cannot_work_is_refused(kind, reason, instance, method, tmp_path):
    model = setups.classifier()
    if instance:
        options = {"optimizers": (kind(model.parameters(), lr=0.01), None)}
    else:
        options = {"optimizer_cls_and_kwargs": (kind, {"lr": 0.01})}
    with pytest.raises(
        ValueError, match=rf"method='{setups.CONFIGS[method].method}'.*{kind.__name__}.*{reason}.*optim="
    ):
        setups.make_trainer(model, setups.sentences(8), tmp_path, setups.CONFIGS[method], **options)


@pytest.mark.parametrize("method", ["sam", "sampa"])
def test_an_embedding_with_sparse_gradients_is_refused(method, tmp_path):
    model = setups.classifier()
    model.bert.embeddings.word_embeddings.sparse = True
    with pytest.raises(
        ValueError, match=r"sparse=True of bert\.embeddings\.word_embeddings \(Embedding\).*sparse=False"
    ):
        setups.make_trainer(model, setups.sentences(8), tmp_path, setups.CONFIGS[method])
    setups.make_trainer(model, setups.sentences(8), tmp_path, SAMConfig(method="none"))


class WithAverages(torch.optim.SGD):
    """As schedule-free optimizers do, keeps averages of the weights, which take the place of the weights in `eval`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.in_training = True
        self.averages = [weight.detach().clone() for group in self.param_groups for weight in group["params"]]

    def step(self, closure=None):
        assert self.in_training
        super().step(closure)
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.param_groups[0]["params"], 0.2)

    def _exchange(self, into_training):
        if self.in_training is not into_training:
            self.in_training = into_training
            with torch.no_grad():
                for weight, average in zip(self.param_groups[0]["params"], self.averages, strict=True):
                    weight.data, average.data = average.data.clone(), weight.data.clone()

    def train(self):
        self._exchange(True)

    def eval(self):
        self._exchange(False)


@pytest.mark.parametrize("name", ["sam", "sampa", "sampa-gradient"])
def test_an_optimizer_that_evaluates_at_other_weights_trains_on_from_its_own(name, tmp_path):
    def run(**arguments):
        model = setups.classifier()
        trainer = setups.make_trainer(
            model,
            setups.sentences(40),
            tmp_path,
            setups.CONFIGS[name],
            data_collator=setups.collate_for_classification,
            optimizers=(WithAverages(model.parameters(), lr=0.1), None),
            eval_dataset=setups.sentences(8),
            arguments=arguments,
        )
        trainer.train()
        trainer.optimizer.train()
        return setups.outcome(trainer), [e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e]

    (evaluated, losses), (never, _) = run(eval_strategy="steps", eval_steps=2), run()
    assert len(set(losses)) == 5
    assert harness.same_bits(evaluated["weights"], never["weights"])
