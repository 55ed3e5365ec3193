"""A sentence-acceptability task in the form of GLUE's CoLA, made by a small grammar of English.

Every sentence is derived from the grammar. Three in ten then get one error, of a kind that linguistics textbooks (and
so CoLA) are full of: agreement across an attractor, a reflexive that does not fit, the wrong verb form after an
auxiliary, a determiner that does not fit its noun, a missing or superfluous object, an unlicensed "ever", a swapped or
a dropped word. Errors change as little as possible, so counting words does not find them.
"""

import random
from itertools import pairwise


# Singular and plural.
PEOPLE = [("actor", "actors"), ("child", "children"), ("doctor", "doctors"), ("spy", "spies"), ("thief", "thieves")]
THINGS = [("book", "books"), ("goose", "geese"), ("house", "houses"), ("shelf", "shelves"), ("story", "stories")]
MASS = ["advice", "money", "rice"]
# Bare form, third person singular, past, participle, -ing form. None of the first list can do without an object.
TRANSITIVE = [
    ("admire", "admires", "admired", "admired", "admiring"), ("carry", "carries", "carried", "carried", "carrying"),
    ("find", "finds", "found", "found", "finding"), ("take", "takes", "took", "taken", "taking"),
]  # fmt: skip
INTRANSITIVE = [
    ("fall", "falls", "fell", "fallen", "falling"), ("laugh", "laughs", "laughed", "laughed", "laughing"),
    ("sleep", "sleeps", "slept", "slept", "sleeping"),
]  # fmt: skip
ADJECTIVES = ["famous", "old", "strange"]
PREPOSITIONS = ["behind", "near", "with"]
ADVERBS = ["often", "rarely"]
SINGULAR_DETERMINERS = ["a", "the", "this", "every"]
PLURAL_DETERMINERS = ["the", "these", "many", "some"]
MASS_DETERMINERS = ["the", "much", "some"]
# Finite auxiliary (singular, plural) and the verb form that it takes: bare 0, participle 3, -ing 4.
AUXILIARIES = [("has", "have", 3), ("is", "are", 4), ("does not", "do not", 0), ("can", "can", 0), ("will", "will", 0)]


def make_sentences(size: int, seed: int) -> list[dict]:
    """Acceptable and unacceptable sentences, all different.

    Args:
        size (`int`): How many.
        seed (`int`): The same seed gives the same sentences, on every machine.

    Returns:
        `list[dict]`: Rows with the columns of CoLA: `sentence`, `label` (1 acceptable, 0 not) and `idx`.
    """
    rng = random.Random(seed)
    seen, rows = set(), []
    while len(rows) < size:
        label = int(rng.random() < 0.7)
        error = None if label else rng.choice(ERRORS)
        sentence = None
        while sentence is None or sentence in seen:
            sentence = _Sentence(rng, error).text()
        seen.add(sentence)
        rows.append({"sentence": sentence, "label": label, "idx": len(rows)})
    return rows


ERRORS = ["agreement", "reflexive", "verb form", "determiner", "object", "ever", "swap", "drop"]


class _Sentence:
    """One derivation. `error` names what goes wrong in it; `text` is `None` where it found no place to go wrong."""

    def __init__(self, rng: random.Random, error: str | None):
        self.rng = rng
        self.error = error
        self.done = error is None

    def fails(self, error: str) -> bool:
        """Whether to make this error here; at most one is made per sentence."""
        if self.done or self.error != error:
            return False
        self.done = True
        return True

    def text(self) -> str | None:
        words = self.clause()
        if self.fails("swap"):
            # Adverbs move freely; swapping equal words changes nothing.
            free = {*ADVERBS, "ever"}
            pairs = [i for i, pair in enumerate(pairwise(words)) if len({*pair} - free) == 2]
            place = self.rng.choice(pairs)
            words[place], words[place + 1] = words[place + 1], words[place]
        if self.fails("drop"):
            # Not the "that" of a relative clause, which English can do without.
            places = [i for i, word in enumerate(words) if word == "who" or word in PREPOSITIONS]
            if not places:
                return None
            del words[self.rng.choice(places)]
        return " ".join(words) + " ." if self.done else None

    def clause(self) -> list[str]:
        plural = self.rng.random() < 0.5
        negative = self.rng.random() < 0.25
        subject = self.noun_phrase(plural, PEOPLE, modified=self.rng.random() < 0.2, no=negative)
        return subject + self.verb_phrase(plural, negative)

    def noun_phrase(self, plural: bool, nouns: list, modified: bool = False, no: bool = False) -> list[str]:
        # Squaring the uniform draw makes the nouns at the end of the list rare.
        noun = nouns[int(len(nouns) * self.rng.random() ** 2)][plural]
        determiners = (SINGULAR_DETERMINERS, PLURAL_DETERMINERS)
        if no:
            determiner = "no"
        elif self.fails("determiner"):
            # Every determiner but "the" shows number.
            determiner = self.rng.choice([d for d in determiners[not plural] if d != "the"])
        else:
            determiner = self.rng.choice(determiners[plural])
        phrase = [determiner]
        if self.rng.random() < 0.3:
            phrase.append(self.rng.choice(ADJECTIVES))
        phrase.append(noun)
        if determiner == "a" and phrase[1][0] in "aeiou":
            phrase[0] = "an"
        if modified:
            phrase += self.modifier(plural)
        return phrase

    def modifier(self, plural: bool) -> list[str]:
        """What stands between a subject and its verb, often with a noun of the other number."""
        other = self.rng.random() < 0.5
        if self.rng.random() < 0.5:
            return [self.rng.choice(PREPOSITIONS), *self.noun_phrase(other, PEOPLE + THINGS)]
        if self.rng.random() < 0.5:
            verb = self.rng.choice(TRANSITIVE)
            return ["who", self.present(verb, plural), *self.noun_phrase(other, PEOPLE + THINGS)]
        verb = self.rng.choice(TRANSITIVE)
        return ["that", *self.noun_phrase(other, PEOPLE), self.present(verb, other)]

    def present(self, verb: tuple, plural: bool) -> str:
        if self.fails("agreement"):
            plural = not plural
        return verb[0] if plural else verb[1]

    def verb_phrase(self, plural: bool, negative: bool) -> list[str]:
        transitive = self.rng.random() < 0.65
        verb = self.rng.choice(TRANSITIVE if transitive else INTRANSITIVE)
        words = self.finite(verb, plural, negative)
        if self.fails("object"):
            transitive = not transitive
        if transitive:
            words += self.object(plural)
        elif self.rng.random() < 0.5:
            words += [self.rng.choice(PREPOSITIONS), *self.noun_phrase(self.rng.random() < 0.5, THINGS)]
        return words

    def finite(self, verb: tuple, plural: bool, negative: bool) -> list[str]:
        ever = negative and self.rng.random() < 0.5
        if not negative and self.fails("ever"):
            ever = True
        if self.rng.random() < 0.55:
            singular_form, plural_form, form = self.rng.choice(AUXILIARIES)
            # "No guest does not …" and "does not ever" are acceptable; keep negation to the subject.
            while "not" in singular_form and (negative or ever):
                singular_form, plural_form, form = self.rng.choice(AUXILIARIES)
            if singular_form != plural_form and self.fails("agreement"):
                plural = not plural
            if self.fails("verb form"):
                # Neither the right form nor one that is spelt like it.
                form = self.rng.choice([f for f in (0, 3, 4) if verb[f] != verb[form]])
            return [*(plural_form if plural else singular_form).split(), *["ever"] * ever, verb[form]]
        adverb = [self.rng.choice(ADVERBS)] if self.rng.random() < 0.25 and not ever else []
        form = verb[2] if self.rng.random() < 0.3 else self.present(verb, plural)
        return [*["ever"] * ever, *adverb, form]

    def object(self, plural: bool) -> list[str]:
        kind = self.rng.random()
        if kind < 0.25:
            reflexives = ["themselves"] if plural else ["himself", "herself"]
            if self.fails("reflexive"):
                reflexives = ["himself", "herself", "itself"] if plural else ["themselves", "ourselves"]
            return [self.rng.choice(reflexives)]
        if kind < 0.4:
            wrong = self.fails("determiner")
            return [self.rng.choice(["many", "these", "a"] if wrong else MASS_DETERMINERS), self.rng.choice(MASS)]
        return self.noun_phrase(self.rng.random() < 0.5, PEOPLE + THINGS)
