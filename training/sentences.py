"""Generate everyday English sentences for training and, from separate templates, for evaluation.

A template is filled with words drawn by a seed. The lists are written so that every phoneme of English occurs often,
alone and in clusters. Training and evaluation share no template, and some words occur in evaluation only.
"""

from __future__ import annotations

import numpy as np

Words = dict[str, tuple[str, ...]]


def split_words(text: str) -> tuple[str, ...]:
    """Split a comma-separated list."""
    return tuple(part.strip() for part in text.split(","))


SHARED: Words = {
    "who": split_words(
        "my brother, your mother, the baker, our neighbor, the young doctor, a tall man, the boy, her sister, "
        "the teacher, the farmer, my father, the old captain, a small girl, the judge, the painter, our cousin"
    ),
    "thing": split_words(
        "book, apple, window, bottle, blue jacket, fishing boat, paper bag, cup of tea, loaf of bread, wooden chair, "
        "yellow umbrella, pair of shoes, map, mushroom soup, piece of cheese, heavy box, bicycle, garden gate, "
        "picture, leather purse, toy horse, silver spoon, kitchen knife, telephone, watch, new carpet"
    ),
    "place": split_words(
        "in the kitchen, at the market, by the river, under the bridge, near the church, on the beach, in the park, "
        "behind the house, at the station, on the roof, in the village, beside the road, above the shop"
    ),
    "when": split_words(
        "this morning, last night, on Monday, every day, before lunch, after five o'clock, in the summer, yesterday, "
        "at noon, a week ago, very early, in the evening"
    ),
    "how": split_words(
        "slowly, quickly, with care, without a word, very quietly, in a hurry, happily, all alone, with both hands"
    ),
    "quality": split_words(
        "big, warm, quiet, beautiful, easy, cold, smooth, funny, wonderful, rough, lovely, heavy, bright, strange, "
        "cheap"
    ),
}

TRAINING: Words = SHARED | {
    "did": split_words(
        "bought, found, moved, washed, opened, carried, showed me, put away, forgot, dropped, made, saw, painted, "
        "pushed, measured, chose, threw away, gave me, wrapped, fixed, borrowed, lifted"
    ),
    "do": split_words("open, bring, move, find, wash, buy, keep, hold, push, fix, leave, show me, use, give me, sell"),
    "beings": split_words(
        "birds, wolves, horses, people, fish, children, bees, boys and girls, leaves, boats, mice, women"
    ),
    "act": split_words("sing, move, jump, sleep, shout, play, wait, laugh, rush by, vanish, come home, breathe"),
    "number": split_words("two, three, four, five, seven, eleven, twelve, thirty, forty five, a hundred, a thousand"),
    "feeling": split_words("sure, proud, afraid, happy, sorry, amazed, worried, pleased, tired"),
}
TRAINING_TEMPLATES = (
    "{Who} {did} the {thing} {place}.",
    "{When}, {who} {did} a {quality} {thing}.",
    "Could you {do} the {thing} {place}, please?",
    "The {beings} {act} {place} {when}.",
    "I am {feeling} that {who} {did} the {thing}.",
    "Why did {who} {do} the {quality} {thing} {how}?",
    "We have {number} {beings} and a {quality} {thing}.",
    "{Who} and {who} {act} {how}, but I {do} the {thing}.",
    "Oh no, where is the {thing}? It was {place} {when}!",
    "Please {do} it {how}, or {who} will be {feeling}.",
    "What a {quality} {thing}! {Who} {did} it {when}.",
    "There were {number} {beings} {place}, and they were all {quality}.",
    "You {did} my {thing} {how}, thank you very much.",
    "{Number} people {act} when {who} {did} the {thing}.",
    "If the {beings} {act}, we {do} the {quality} {thing} {place}.",
    "He said, {do} the {thing}, and she {did} it {how}.",
    "Maybe {who} was {feeling} {when}, because the {thing} was so {quality}.",
)

UNSEEN: Words = SHARED | {
    "name": split_words("Emma, Oliver, Sophie, George, Maya, Philip, Beth, Arthur, Zoe, Frank, Joyce, Howard"),
    "likes": split_words("loves, remembers, ignores, enjoys, describes, avoids, hates, imagines, repairs, visits"),
    "sky": split_words("rain, snow, thunder, sunshine, fog, a storm, heavy clouds, a cool breeze, moonlight"),
    "food": split_words(
        "pepper, honey, roast beef, plums, fresh salmon, vanilla pudding, chips, olives, warm porridge"
    ),
    "animal": split_words("puppy, giraffe, fox, whale, beaver, mouse, elephant, sheep, lizard, owl, zebra, hamster"),
    "job": split_words("pilot, nurse, chef, lawyer, singer, plumber, photographer, soldier, waiter, shopkeeper"),
}
UNSEEN_TEMPLATES = (
    "{Name} really {likes} {food} and {food}.",
    "The weather report promises {sky} {when}.",
    "{Name}, the {job}, keeps a {animal} {place}.",
    "Have you ever seen a {animal} eat {food}?",
    "Good morning! My name is {name}, and I work as a {job}.",
    "The {quality} {animal} jumped over {name}'s {thing}.",
    "Between you and me, {name} {likes} the {quality} {job} next door.",
    "After {sky} comes {sky}, as every {job} knows.",
    "{Name} answered the phone {how}: nobody {likes} a {thing} like that.",
    "Half of the {food} belongs to {who}, the rest to the {animal}.",
    "Tomorrow {name} will teach {who} about {sky} and the {animal}.",
)


def training_sentence(seed: int) -> str:
    """Return a sentence for training."""
    return _sentence(np.random.default_rng((21, seed)), TRAINING_TEMPLATES, TRAINING)


def unseen_sentence(seed: int) -> str:
    """Return a sentence for evaluation; `training_sentence` never returns it."""
    return _sentence(np.random.default_rng((22, seed)), UNSEEN_TEMPLATES, UNSEEN)


def _sentence(rng: np.random.Generator, templates: tuple[str, ...], words: Words) -> str:
    """Fill every {slot} of a random template; a slot with a capital first letter gets a capitalized word."""
    pieces = templates[rng.integers(len(templates))].split("{")
    text = pieces[0]
    for piece in pieces[1:]:
        slot, rest = piece.split("}")
        choices = words[slot.lower()]
        word = choices[rng.integers(len(choices))]
        text += (word[0].upper() + word[1:] if slot[0].isupper() else word) + rest
    return text
