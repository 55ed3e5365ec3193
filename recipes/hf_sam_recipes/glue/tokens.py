"""Whether a tokenizer and a model belong together, and whether a tokenizer knows the words at all."""

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase


LOOKED_AT = 1000  # examples


def check_tokenizer(name: str, tokenizer: PreTrainedTokenizerBase, max_length: int, sentences: int) -> None:
    """
    Args:
        name (`str`): Of the model, for the error.
        sentences (`int`): Of an input, 1 or 2.

    Raises:
        `ValueError`: it has no words, as where a model's folder has no file of a tokenizer, or `max_length` leaves no
            room for any.
    """
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise ValueError(
            f"model_name_or_path={name!r}: its tokenizer has no words, only {len(tokenizer)} special tokens; add the "
            "files of the tokenizer (tokenizer.json, or vocab.txt) to the folder of the model."
        )
    needed = tokenizer.num_special_tokens_to_add(pair=sentences == 2) + sentences
    if max_length < needed:
        raise ValueError(
            f"max_length={max_length}: must be at least {needed}, which the special tokens and one token of each "
            "sentence need."
        )


def check_tokens(name: str, tokenizer: PreTrainedTokenizerBase, split: Dataset, embeddings: int) -> None:
    """
    Args:
        name (`str`): Of the model, for the error.
        split (`Dataset`): With `input_ids`; the first examples are looked at.
        embeddings (`int`): Tokens that the model knows.

    Raises:
        `ValueError`: all words are unknown, or the model does not know a token.
    """
    tokens = np.concatenate([np.asarray(row) for row in split[:LOOKED_AT]["input_ids"]])
    if tokens.max() >= embeddings:
        raise ValueError(
            f"model_name_or_path={name!r}: its tokenizer gives token {tokens.max()}, and the model knows "
            f"{embeddings}: the files are of different models; give a folder with one model and its own tokenizer."
        )
    # A tokenizer of bytes or characters has no unknown token.
    words = tokens[~np.isin(tokens, [i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id])]
    if tokenizer.unk_token_id is not None and len(words) and (words == tokenizer.unk_token_id).all():
        raise ValueError(
            f"model_name_or_path={name!r}: its tokenizer knows no word of the first {min(LOOKED_AT, len(split))} "
            "examples; add the files of the model's own tokenizer to its folder."
        )
