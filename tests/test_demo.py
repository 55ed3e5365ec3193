"""The demo: its made-up sentences are what they claim to be, and its table holds what was measured."""

import collections
import importlib
import random

import pytest


def test_sentences_are_different_seeded_and_as_unbalanced_as_cola():
    from hf_sam_recipes.demos.sentences import make_sentences

    rows = make_sentences(2000, seed=3)
    assert len({row["sentence"] for row in rows}) == 2000
    assert [row["idx"] for row in rows] == list(range(2000))
    assert 0.66 < sum(row["label"] for row in rows) / 2000 < 0.74
    assert make_sentences(500, seed=3) == rows[:500]
    assert make_sentences(500, seed=4) != rows[:500]


def test_no_sentence_is_both_acceptable_and_not():
    from hf_sam_recipes.demos.sentences import ERRORS, _Sentence

    rng = random.Random(0)
    acceptable = {_Sentence(rng, None).text() for _ in range(5000)}
    found = collections.Counter()
    for error in ERRORS:
        sentences = {_Sentence(rng, error).text() for _ in range(1000)} - {None}
        assert not sentences & acceptable
        found[error] = len(sentences)
    assert min(found[error] for error in ERRORS) > 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "adamw", "smp"], "invalid choice: 'smp'"),
        (["--epoch", "3"], "unknown option 'epoch'; did you mean 'epochs'"),
        (["--epochs", "0"], "epochs=0.0: must be above 0"),
        (["--seed", "-1"], "seed=-1: must be at least 0"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    import demo

    with pytest.raises(ValueError, match=message):
        demo.main(arguments)


# What a few updates leave: the share of the larger class and the loss of a guess among two; a guess among ten.
DEMOS = {
    "demo": ("sampa-0.1", "0.02", {"accuracy": (0.5, 0.8), "loss": (0.4, 1.0)}),
    "demo_vit": ("sampa-0.2", "0.1", {"top-5": (0.3, 0.8), "loss": (2.0, 2.6)}),
}


@pytest.mark.parametrize("demo", DEMOS)
def test_the_table_shows_every_method_that_was_asked_for(demo, tmp_path, capsys):
    in_pairs, epochs, ranges = DEMOS[demo]
    options = ["--methods", "adamw", in_pairs, "--epochs", epochs, "--output_dir", str(tmp_path)]
    importlib.import_module(demo).main(options)
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[-2:]}
    assert list(rows) == ["adamw", in_pairs]
    for name, processes in (("adamw", 1), (in_pairs, 2)):
        count, _, score, eval_loss, sharpness, seconds, ratio = map(float, rows[name])
        assert count == processes
        for value, (low, high) in zip((score, eval_loss), ranges.values(), strict=True):
            assert low < value < high
        assert 0 < sharpness < 1
        assert seconds > 1e-4
        assert ratio == pytest.approx(seconds / float(rows["adamw"][5]), abs=0.3)
    assert float(rows["adamw"][6]) == 1.0
