"""What single hosts promise beside their numbers: their checkpoints, their best model, their completions, a search."""

import pytest
import torch

from hf_sam import SAMConfig
from tests.stack import tiny
from tests.stack.cells import outcome, same_bits
from tests.stack.hosts import HERE, HOSTS, make_trainer


SAVING = [param for param in HERE if "Reward" not in param.values[0] and "RLOO" not in param.values[0]]
CONFIG = SAMConfig(rho=0.05)


def needs(package):
    return pytest.mark.skipif(not HOSTS[package].is_here, reason=f"needs {HOSTS[package].package}")


def adamw(**options):
    return {"optim": "adamw_torch", "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 1} | options


@pytest.mark.parametrize("host", SAVING)
def test_a_resumed_run_is_the_uninterrupted_one(host, tmp_path):
    """As far as the host's own class is, which saves no weights of a loss."""
    loses = "SoftmaxLoss" in host or "two losses" in host
    results = {}
    for name, config in {"stock": None, "sam": CONFIG}.items():
        whole = make_trainer(host, tmp_path / name, config, **adamw())
        whole.train()
        last = whole.state.global_step
        resumed = make_trainer(host, tmp_path / f"{name}-resumed", config, **adamw(save_strategy="no"))
        resumed.train(resume_from_checkpoint=str(tmp_path / name / f"checkpoint-{last - 2}"))
        assert resumed.state.global_step == last
        results[name] = same_bits(outcome(whole), outcome(resumed))
    assert results["sam"] is results["stock"] is not loses


@needs("CrossEncoder")
@pytest.mark.parametrize("host", ["SentenceTransformer, MultipleNegatives", "CrossEncoder"])
@pytest.mark.parametrize("method", ["none", "sam"])
def test_the_best_model_is_loaded_at_the_end(host, method, tmp_path):
    arguments = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True, "learning_rate": 0.1}
    # The first evaluation is the best one.
    arguments |= {"metric_for_best_model": "eval_loss", "greater_is_better": True, "save_total_limit": 20}
    trainer = make_trainer(host, tmp_path, SAMConfig(method), **adamw(**arguments), evaluated=True)
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    best = losses.index(max(losses)) + 1
    assert trainer.state.best_global_step == best < len(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(max(losses), abs=1e-6)


@needs("trl GRPO")
@pytest.mark.parametrize("host", ["trl GRPO", "trl RLOO"])
def test_both_passes_of_an_update_see_the_same_completions(host, tmp_path):
    class Noting:
        seen = None

        def compute_loss(self, model, inputs, *args, **kwargs):
            Noting.seen.append((self.state.global_step, inputs["completion_ids"].tolist()))
            return super().compute_loss(model, inputs, *args, **kwargs)

        def _generate_and_score_completions(self, *args, **kwargs):
            Noting.generated += 1
            return super()._generate_and_score_completions(*args, **kwargs)

    Noting.seen, Noting.generated = [], 0
    trainer = make_trainer(host, tmp_path, SAMConfig(rho=0.3), over=Noting)
    trainer.train()
    steps = trainer.args.gradient_accumulation_steps
    assert trainer.state.global_step == 6
    for update in range(6):
        passes = [ids for step, ids in Noting.seen if step == update]
        assert len(passes) == 2 * steps
        assert passes[:steps] == passes[steps:]
    # Four updates use one generation: four micro-batches, each twice (`num_iterations`), two to an update.
    assert Noting.generated == 2
    assert trainer._step == 12
    assert len({str(ids) for _, ids in Noting.seen}) > 4


@needs("trl GRPO")
def test_a_host_that_generates_is_refused_with_sampa(tmp_path):
    with pytest.raises(ValueError, match=r"method='sampa' cannot be combined with GRPOTrainer.*method='sam'"):
        make_trainer("trl GRPO", tmp_path, SAMConfig("sampa", lookahead="gradient"))


@needs("trl SFT")
def test_a_host_that_generates_inside_of_its_own_step_is_refused(tmp_path):
    experimental = pytest.importorskip("trl.experimental.online_dpo")
    from hf_sam import SAMTrainerMixin
    from hf_sam.host_classes import generates_in_every_step

    class Sharp(SAMTrainerMixin, experimental.OnlineDPOTrainer):
        pass

    assert generates_in_every_step(object.__new__(Sharp)) == "OnlineDPOTrainer"
    for other in ("SFTTrainer", "GRPOTrainer"):
        import trl

        cls = type("Sharp", (SAMTrainerMixin, getattr(trl, other)), {})
        assert generates_in_every_step(object.__new__(cls)) is None


@needs("SentenceTransformer, SoftmaxLoss")
@pytest.mark.parametrize("host", ["SentenceTransformer, SoftmaxLoss", "SentenceTransformer, two losses"])
def test_the_weights_of_a_loss_are_perturbed_and_stepped_once(host, tmp_path):
    displaced = []

    class Noting:
        def compute_loss(self, model, inputs, *args, **kwargs):
            loss = self.loss["classes"] if isinstance(self.loss, dict) else self.loss
            displaced.append(loss.classifier.weight.detach().clone())
            return super().compute_loss(model, inputs, *args, **kwargs)

    trainer = make_trainer(host, tmp_path, SAMConfig(rho=0.3), over=Noting, gradient_accumulation_steps=1, max_steps=3)
    before = trainer.loss["classes"] if isinstance(trainer.loss, dict) else trainer.loss
    before = before.classifier.weight.detach().clone()
    trainer.train()
    moved = [float((second - first).norm()) for first, second in zip(displaced[::2], displaced[1::2], strict=True)]
    assert len(moved) == 3
    assert 0 < max(moved) <= 0.3 + 1e-6
    assert torch.equal(displaced[0], before)


def test_a_search_tries_the_radii_that_it_says(tmp_path):
    pytest.importorskip("optuna")
    tried = {}

    class Noting:
        def training_step(self, *args, **kwargs):
            loss = super().training_step(*args, **kwargs)
            tried.setdefault(self.sam_config.rho, self.sam_method.config.rho)
            return loss

    trainer = make_trainer("Trainer", tmp_path, CONFIG, eval_strategy="epoch", evaluated=True, num_train_epochs=1)
    trainer.model_init = lambda: tiny.decoder()
    # Above the mixin, to look at what it does.
    trainer.__class__ = type("Noting", (Noting, type(trainer)), {})
    space = {"rho": [0.0, 0.05, 2.0]}
    import optuna

    best = trainer.hyperparameter_search(
        hp_space=lambda trial: {
            "rho": trial.suggest_categorical("rho", space["rho"]),
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.01),
        },
        n_trials=3,
        backend="optuna",
        sampler=optuna.samplers.GridSampler(space | {"learning_rate": [0.01]}),
        compute_objective=lambda metrics: metrics["eval_loss"],
    )
    assert tried == {0.0: 0.0, 0.05: 0.05, 2.0: 2.0}
    assert trainer.args.learning_rate == 0.01
    # The best run is the one that a run with its radius alone is.
    alone = make_trainer(
        "Trainer",
        tmp_path / "alone",
        SAMConfig(rho=best.hyperparameters["rho"]),
        eval_strategy="epoch",
        evaluated=True,
        num_train_epochs=1,
        learning_rate=0.01,
    )
    alone.train()
    assert alone.evaluate()["eval_loss"] == pytest.approx(best.objective, abs=1e-6)
    objectives = set()
    for rho in space["rho"]:
        trainer.sam_config = SAMConfig(rho=rho)
        trainer.train()
        objectives.add(trainer.evaluate()["eval_loss"])
    assert len(objectives) == 3
    assert min(objectives) == pytest.approx(best.objective, abs=1e-6)
