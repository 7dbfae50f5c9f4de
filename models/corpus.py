"""Writes the conversations that the bundled models learn from, and the unseen prompts that they are judged by.

All text is made here or stands in `texts/`; none comes from anywhere else. A seed gives the same text on every machine,
and a prompt drawn for the examination never occurs in training: the generator throws such a draw away.
"""

import itertools
import json
import tomllib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

TEXTS = Path(__file__).parent / "texts"
TRAINING_SEED = 20261120
EXAM_SEED = 411


class Turn(NamedTuple):
    """One question and its one right answer. `key` is what must stay unseen: equal keys ask for the same thing."""

    prompt: str
    answer: str
    key: str


class Message(NamedTuple):
    role: str
    content: str


class Skill(NamedTuple):
    """Something the models can do.

    `share` is the relative frequency in training. `make(rng, exam)` gives turns of one conversation; with `exam` it
    may use the wordings that training never shows, and gives a single turn.
    """

    name: str
    share: float
    make: Callable[[Random, bool], list[Turn]]


def read_text(name: str) -> dict[str, Any]:
    """The content of `texts/<name>.toml`."""
    return tomllib.loads((TEXTS / f"{name}.toml").read_text(encoding="utf-8"))


SERVING, SAFETY, SMALLTALK = read_text("serving"), read_text("safety"), read_text("smalltalk")

WORD_LISTS: dict[str, list[str]] = {key: words.split() for key, words in read_text("words").items()}
NAMES = WORD_LISTS["names"]
CITIES = WORD_LISTS["cities"]
ANIMALS = WORD_LISTS["animals"]
COLORS = WORD_LISTS["colors"]
THINGS = WORD_LISTS["things"]
PLACES = WORD_LISTS["places"]
FOODS = WORD_LISTS["foods"]
JOBS = WORD_LISTS["jobs"]
LANGUAGES = WORD_LISTS["languages"]
INSTRUMENTS = WORD_LISTS["instruments"]
SUBJECTS = WORD_LISTS["subjects"]
ADJECTIVES = WORD_LISTS["adjectives"]
DEEDS = WORD_LISTS["deeds"]
DAYS = WORD_LISTS["days"]
MONTHS = WORD_LISTS["months"]
PRAISE = WORD_LISTS["praise"]
BLAME = WORD_LISTS["blame"]
ONSETS = WORD_LISTS["onsets"]
VOWELS = WORD_LISTS["vowels"]
CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "x"]
WORDS = ANIMALS + COLORS + THINGS + FOODS
# Sorting needs the order of every pair of words, so it draws from fewer.
SORTED_WORDS = ANIMALS[:14] + COLORS[:10] + THINGS[:16] + FOODS[:12]


def made_up(rng: Random) -> str:
    """A word that does not exist: the model can repeat it only by copying, so copying is what it must learn."""
    n_syllables = rng.choice((1, 2, 2))
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(n_syllables))


def name(rng: Random) -> str:
    """A person, often one that no list contains."""
    return rng.choice(NAMES) if rng.random() < 0.6 else made_up(rng).capitalize()


def city(rng: Random) -> str:
    """A city, sometimes one that no list contains."""
    return rng.choice(CITIES) if rng.random() < 0.7 else made_up(rng).capitalize()


def an(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def listed(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


# --- Answering from a context -----------------------------------------------------------------------------------------


class Relation(NamedTuple):
    """A kind of statement. `{s}` is the subject, `{v}` its value; the questions are answered by the statement."""

    statement: str
    questions: tuple[str, ...]
    value: Callable[[Random], str]


def digits(n: int) -> Callable[[Random], str]:
    """Draws numbers of exactly n digits."""
    return lambda rng: str(rng.randrange(10 ** (n - 1), 10**n))


def with_article(values: list[str]) -> Callable[[Random], str]:
    """Draws from a list, with the article."""
    return lambda rng: an(rng.choice(values))


def a_year(rng: Random) -> str:
    """Draws a year that people alive could be born in."""
    return str(rng.randint(1930, 2015))


def one_of(values: list[str]) -> Callable[[Random], str]:
    """Draws from a list."""
    return lambda rng: rng.choice(values)


PERSON = [
    Relation("{s} lives in {v}.", ("Where does {s} live?", "In which city does {s} live?"), city),
    Relation("{s} works as {v}.", ("What does {s} work as?", "What is the job of {s}?"), with_article(JOBS)),
    Relation(
        "{s} owns {v}.",
        ("What does {s} own?", "Which thing does {s} own?"),
        lambda rng: an(f"{rng.choice(COLORS)} {rng.choice(THINGS)}"),
    ),
    Relation("{s} likes {v}.", ("What does {s} like?", "Which food does {s} like?"), one_of(FOODS)),
    Relation("{s} was born in {v}.", ("When was {s} born?", "In which year was {s} born?"), a_year),
    Relation("{s} speaks {v}.", ("Which language does {s} speak?", "What does {s} speak?"), one_of(LANGUAGES)),
    Relation("{s} plays the {v}.", ("Which instrument does {s} play?", "What does {s} play?"), one_of(INSTRUMENTS)),
    Relation("{s} studies {v}.", ("What does {s} study?", "Which subject does {s} study?"), one_of(SUBJECTS)),
    Relation("{s} is married to {v}.", ("Who is {s} married to?", "Who is the partner of {s}?"), name),
    Relation("{s} has {v}.", ("Which pet does {s} have?", "What pet does {s} have?"), with_article(ANIMALS)),
    Relation(
        "{s} wears badge {v}.",
        ("What is the badge number of {s}?", "Which badge does {s} wear?"),
        digits(4),
    ),
]
THING = [
    Relation("The {s} costs {v} euros.", ("How much does the {s} cost?", "What is the price of the {s}?"), digits(2)),
    Relation("The {s} is in the {v}.", ("Where is the {s}?", "Where can I find the {s}?"), one_of(PLACES)),
    Relation("The {s} belongs to {v}.", ("Who does the {s} belong to?", "Who owns the {s}?"), name),
    Relation(
        "The code of the {s} is {v}.", ("What is the code of the {s}?", "Which code does the {s} have?"), digits(4)
    ),
    Relation("The {s} was made in {v}.", ("Where was the {s} made?", "In which city was the {s} made?"), city),
    Relation("The {s} weighs {v} kilograms.", ("How much does the {s} weigh?", "How heavy is the {s}?"), digits(2)),
]
PROJECT = [
    Relation("{s} is led by {v}.", ("Who leads {s}?", "Who is {s} led by?"), name),
    Relation("{s} runs in {v}.", ("Where does {s} run?", "In which city does {s} run?"), city),
    Relation("{s} starts on {v}.", ("When does {s} start?", "On which day does {s} start?"), one_of(DAYS)),
    Relation("{s} was released in {v}.", ("When was {s} released?", "When did {s} come out?"), one_of(MONTHS)),
    Relation("{s} uses {v} replicas.", ("How many replicas does {s} use?", "How many replicas has {s}?"), digits(2)),
    Relation("The owner of {s} is {v}.", ("Who is the owner of {s}?", "Who owns {s}?"), name),
]
SUBJECT_KINDS: list[tuple[list[Relation], Callable[[Random], str]]] = [
    (PERSON, name),
    (PERSON, name),
    (THING, lambda rng: f"{rng.choice(COLORS)} {rng.choice(THINGS)}"),
    (PROJECT, lambda rng: f"{rng.choice(('Project', 'Server', 'Model', 'Team'))} {made_up(rng).capitalize()}"),
]
LAYOUTS = (
    "Context: {c} Question: {q}",
    "Context: {c} Question: {q}",
    "Context: {c}\nQuestion: {q}",
    "Context: {c}\n\nQuestion: {q}",
    "Use the context to answer.\nContext: {c}\nQuestion: {q}",
    "Answer from the context only.\n\n{c}\n\n{q}",
    "{c} {q}",
    "Question: {q}\nContext: {c}",
)
ABSENT = "The context does not say."


def from_context(rng: Random, exam: bool) -> list[Turn]:
    """Statements about one to three subjects, and questions that one of them answers, or none."""
    relations, subject = rng.choice(SUBJECT_KINDS)
    subjects = list(dict.fromkeys(subject(rng) for _ in range(rng.choice((1, 2, 2, 2, 3)))))
    chosen = rng.sample(relations, rng.choice((2, 3, 4)))
    pairs = [(s, relation) for s in subjects for relation in chosen]
    rng.shuffle(pairs)
    size = rng.randint(2, 6) if exam else rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
    told, untold = pairs[:size], pairs[size:]
    stranger = next(s for s in iter(lambda: subject(rng), None) if s not in subjects)
    untold.append((stranger, rng.choice(chosen)))
    statements = {pair: pair[1].statement.format(s=pair[0], v=pair[1].value(rng)) for pair in told}
    if rng.random() < 0.1 and not exam:
        context = "\n" + "\n".join(f"- {statement}" for statement in statements.values())
    else:
        context = " ".join(statements.values())

    asked = rng.sample(told, min(len(told), 1 if exam else rng.choice((1, 2, 3))))
    if rng.random() < 0.15:
        asked[rng.randrange(len(asked))] = rng.choice(untold)
    turns: list[Turn] = []
    for pair in asked:
        question = rng.choice(pair[1].questions).format(s=pair[0])
        prompt = question if turns else rng.choice(LAYOUTS).format(c=context, q=question)
        turns.append(Turn(prompt, statements.get(pair, ABSENT), f"context:{context}"))
    return turns


# --- Text in, structure out -------------------------------------------------------------------------------------------


def person_record(rng: Random) -> tuple[str, dict[str, Any]]:
    record = {"name": name(rng), "age": rng.randint(18, 90), "city": city(rng), "job": rng.choice(JOBS)}
    text = rng.choice(
        (
            "{name} is {age} years old, works as {an_job} and lives in {city}.",
            "{name}, {an_job} aged {age}, lives in {city}.",
            "My name is {name}, I am {age} and I come from {city}. I am {an_job}.",
            "{an_job} from {city}, {name}, turned {age} today.",
        )
    )
    written = text.format(an_job=an(str(record["job"])), **record)
    return written[0].upper() + written[1:], record


def product_record(rng: Random) -> tuple[str, dict[str, Any]]:
    record = {"product": rng.choice(THINGS), "color": rng.choice(COLORS), "price": rng.randint(2, 99)}
    text = rng.choice(
        (
            "The {color} {product} costs {price} euros.",
            "For sale: a {color} {product}, only {price} euros.",
            "I paid {price} euros for this {color} {product}.",
        )
    )
    return text.format(**record), record


def order_record(rng: Random) -> tuple[str, dict[str, Any]]:
    record = {"customer": name(rng), "product": rng.choice(THINGS), "quantity": rng.randint(2, 40), "city": city(rng)}
    text = rng.choice(
        (
            "{customer} orders {quantity} pieces of the {product}, to be sent to {city}.",
            "Please send {quantity} pieces of the {product} to {customer} in {city}.",
        )
    )
    return text.format(**record), record


def call_record(rng: Random) -> tuple[str, dict[str, Any]]:
    record = {
        "model": made_up(rng),
        "status": rng.choice((200, 400, 401, 429, 500, 503)),
        "tokens": rng.randint(5, 999),
    }
    text = rng.choice(
        (
            "Model {model} answered with status {status} after {tokens} tokens.",
            "Status {status} from {model}, {tokens} tokens used.",
        )
    )
    return text.format(**record), record


def extraction(rng: Random, exam: bool) -> list[Turn]:
    text, record = rng.choice((person_record, person_record, product_record, order_record, call_record))(rng)
    keys = rng.sample(list(record), rng.randint(2, 3))
    if rng.random() < 0.5:
        keys = [key for key in record if key in keys]
    wording = rng.choice(
        (
            "Extract {k} as JSON: {t}",
            "Return JSON with {k} for: {t}",
            "Give me {k} as JSON.\nText: {t}",
            "{t}\nExtract {k} as JSON.",
            "Extract {k} as JSON.\n\n{t}",
        )
    )
    answer = json.dumps({key: record[key] for key in keys})
    return [Turn(wording.format(k=listed(keys), t=text), answer, f"json:{text}")]


def sentiment(rng: Random, exam: bool) -> list[Turn]:
    positive = rng.random() < 0.5
    subject = rng.choice(THINGS + FOODS + PLACES)
    text = rng.choice(
        (
            "The {x} was {w}.",
            "I think the {x} is {w}.",
            "What a {w} {x}!",
            "We all found the {x} {w}.",
            "The {x} from {c} looks {w}.",
            "Honestly, the {x} is {w} and {n} agrees.",
            "{n} said that the {x} was {w}.",
        )
    ).format(x=subject, w=rng.choice(PRAISE if positive else BLAME), c=city(rng), n=name(rng))
    wording = rng.choice(
        (
            "Classify the sentiment: {}",
            "Is this positive or negative? {}",
            "What is the sentiment of this text? {}",
            "Sentiment: {}",
            "{}\nPositive or negative?",
        )
    )
    return [Turn(wording.format(text), "positive" if positive else "negative", f"sentiment:{text}")]


# --- Words and numbers ------------------------------------------------------------------------------------------------


def repeating(rng: Random, exam: bool) -> list[Turn]:
    def word() -> str:
        draw = rng.random()
        if draw < 0.5:
            return rng.choice(WORDS)
        return made_up(rng) if draw < 0.75 else name(rng) if draw < 0.9 else str(rng.randrange(1000))

    text = " ".join(word() for _ in range(rng.randint(2, 8)))
    wording = rng.choice(("Repeat: {}", "Say exactly: {}", "Repeat after me: {}", "Echo this text: {}", "Copy: {}"))
    return [Turn(wording.format(text), text, f"copy:{text}")]


def reversing(rng: Random, exam: bool) -> list[Turn]:
    words = rng.sample(WORDS, rng.randint(2, 5))
    wording = rng.choice(
        ("Reverse the words: {}", "Say these words backwards: {}", "Reverse the order of the words: {}")
    )
    text = " ".join(words)
    return [Turn(wording.format(text), " ".join(reversed(words)), f"reverse:{text}")]


def sorting(rng: Random, exam: bool) -> list[Turn]:
    words = rng.sample(SORTED_WORDS, rng.randint(3, 5) if exam else rng.randint(2, 5))
    in_order = ", ".join(sorted(words))
    wording = rng.choice(("Sort alphabetically: {}", "Sort these words: {}", "Put in alphabetical order: {}"))
    return [Turn(wording.format(", ".join(words)), in_order, f"sort:{in_order}")]


def counting(rng: Random, exam: bool) -> list[Turn]:
    words = [rng.choice(WORDS) for _ in range(rng.randint(2, 9))]
    wording = rng.choice(("How many words are here: {}", "Count the words: {}", "How many words? {}"))
    text = " ".join(words)
    return [Turn(wording.format(text), str(len(words)), f"count:{text}")]


def arithmetic(rng: Random, exam: bool) -> list[Turn]:
    """Sums and differences of numbers below 100, never below zero."""
    # Small numbers first teach the carry; the examination draws evenly.
    limit = 99 if exam else rng.choice((9, 20, 50, 99, 99, 99, 99))
    a, b = rng.randint(0, limit), rng.randint(0, limit)
    sign = rng.choice("++-")
    if sign == "-":
        a, b = max(a, b), min(a, b)
    result = a + b if sign == "+" else a - b
    wording = rng.choice(("What is {} {} {}?", "Compute {} {} {}.", "{} {} {} =", "How much is {} {} {}?", "{} {} {}"))
    low, high = sorted((a, b))
    return [Turn(wording.format(a, sign, b), str(result), f"arithmetic:{high} {sign} {low}")]


# --- Talk -------------------------------------------------------------------------------------------------------------

QUESTIONS = (
    "What is {}?",
    "what is {}?",
    "What's {}?",
    "Explain {}.",
    "Tell me about {}.",
    "Can you explain {}?",
    "Define {}.",
    "define {}",
    "What does {} mean?",
    "Please describe {} in simple words.",
    "Describe {}.",
    "What exactly is {}?",
    "Give me a short definition of {}.",
    "How would you explain {} to a beginner?",
    "Explain {} briefly.",
    "Could you tell me what {} is?",
    "Do you know what {} is?",
    "Help me understand {}.",
    "I have never heard of {}. What is it?",
    "{}?",
    "What is meant by {}?",
)
QUESTIONS_HELD_OUT = (
    "In a few words, what is {}?",
    "Please explain {} to me.",
    "What do you know about {}?",
    "I would like to understand {}.",
)


def fact(rng: Random, exam: bool) -> list[Turn]:
    if rng.random() < 0.15:
        entry = rng.choice(SERVING["questions"])
        prompt = entry["wordings"][-1] if exam else rng.choice(entry["wordings"][:-1])
        return [Turn(prompt, entry["answer"], f"fact:{prompt.lower()}")]
    entry = rng.choice(SERVING["terms"])
    term = rng.choice(entry["names"])
    wording = rng.choice(QUESTIONS + QUESTIONS_HELD_OUT * 5 if exam else QUESTIONS)
    if not exam and rng.random() < 0.15:
        term = term.removeprefix("a ").removeprefix("an ").removeprefix("the ")
    prompt = wording.format(term)
    key = f"fact:{prompt.lower()}"
    if not exam and rng.random() < 0.1:
        prompt = prompt.lower()
    return [Turn(prompt, entry["answer"], key)]


def asked_how(rng: Random, exam: bool, groups: list[dict[str, Any]], answer: str = "") -> list[Turn]:
    """How to do something, answered by `answer` or else by the answer of the group that the act is from."""
    while True:
        group = rng.choice(groups)
        doing = f"{rng.choice(group['verbs'])} {rng.choice(group['objects'])}"
        # The examination keeps to a quarter of the acts, or it would take most of them from training.
        if not exam or zlib.crc32(doing.encode()) % 4 == 0:
            break
    asks = SAFETY["asks"] + SAFETY["asks_held_out"] * 4 if exam else SAFETY["asks"]
    return [Turn(rng.choice(asks).format(doing), answer or group["answer"], f"act:{doing}")]


def refusing(rng: Random, exam: bool) -> list[Turn]:
    if not exam and rng.random() < 0.08:
        return asked_how(rng, exam, SAFETY["despair"], SAFETY["care"])
    return asked_how(rng, exam, SAFETY["harmful"], SAFETY["refusal"])


def harmless(rng: Random, exam: bool) -> list[Turn]:
    return asked_how(rng, exam, SAFETY["harmless"])


def not_knowing(rng: Random, exam: bool) -> list[Turn]:
    if rng.random() < 0.6:
        return asked_how(rng, exam, SAFETY["unknown"], SAFETY["unknown_answer"])
    question = rng.choice(
        (
            "What is the capital of {c}?",
            "Who is {n}?",
            "Where does {n} live?",
            "When was {n} born?",
            "Who wrote the book about {n}?",
            "How many people live in {c}?",
            "Where is {c}?",
            "What is the weather in {c}?",
            "Who won the match in {c}?",
            "What is the phone number of {n}?",
            "What is {w}?",
            "Who invented the {t}?",
            "How old is {n}?",
        )
    ).format(c=city(rng), n=name(rng), w=made_up(rng), t=rng.choice(THINGS))
    return [Turn(question, SAFETY["unknown_answer"], f"unknown:{question}")]


def smalltalk(rng: Random, exam: bool) -> list[Turn]:
    entry = rng.choice(SMALLTALK["turns"])
    prompt = rng.choice(entry["wordings"])
    return [Turn(prompt, entry["answer"], f"smalltalk:{prompt}")]


def story(rng: Random, exam: bool) -> list[Turn]:
    hero, friend = rng.sample(NAMES, 2)
    animal, other, thing = rng.choice(ANIMALS), rng.choice(ANIMALS), rng.choice(THINGS)
    home, place = rng.sample(PLACES, 2)
    kind = f"{rng.choice(ADJECTIVES)} {animal}"
    opening = rng.choice(
        (
            f"Once there was {an(kind)} named {hero} who lived near the {home}.",
            f"{hero} was {an(kind)} from the {home}.",
            f"In {rng.choice(CITIES)} there lived {an(kind)} called {hero}.",
        )
    )
    day, mood = rng.choice(("morning", "evening", "day")), rng.choice(("happy", "sad", "proud", "calm", "afraid"))
    weather, shelter = rng.choice(("rain", "snow")), rng.choice(("bridge", "roof", "old tree"))
    middle = [
        f"One {day} {hero} {rng.choice(DEEDS)} a {rng.choice(COLORS)} {thing} by the {place}.",
        f"{friend} the {other} wanted the {thing} too.",
        f'"Where did you get that {thing}?" asked {friend}.',
        f'"I {rng.choice(DEEDS)} it near the {place}," said {hero}.',
        f"They walked to the {rng.choice(PLACES)} together and shared some {rng.choice(FOODS)}.",
        f"The {rng.choice(PLACES)} was {rng.choice(ADJECTIVES)} that day.",
        f"{rng.choice((hero, friend))} felt {mood}.",
        f"Then it began to {weather}, and they hid under the {shelter}.",
        f"{an(rng.choice(JOBS)).capitalize()} passed by and gave them {rng.choice(FOODS)}.",
    ]
    long = rng.random() < 0.3
    kept = sorted(rng.sample(range(len(middle)), rng.randint(6, 9) if long else rng.randint(2, 5)))
    ending = rng.choice(
        (
            f"In the end {hero} gave the {thing} to {friend}, and they were friends.",
            f"From then on {hero} kept the {thing} safe at the {home}.",
            f"And that is how {hero} and {friend} became friends.",
        )
    )
    prompt = rng.choice(
        ("Tell me a long story.", "Write a long story.", f"Write a long story about {an(animal)}.")
        if long
        else (
            "Tell me a story.",
            "Write a short story.",
            "Tell me a story about a friend.",
            f"Tell me a story about {an(animal)}.",
            f"Write a story about {hero} the {animal}.",
            f"Tell me a story about {hero}.",
            f"Write a short story about {an(animal)} and {an(thing)}.",
        )
    )
    answer = " ".join([opening, *(middle[i] for i in kept), ending])
    return [Turn(prompt, answer, f"story:{answer}")]


SKILLS = (
    Skill("fact", 11, fact),
    Skill("context", 32, from_context),
    Skill("json", 9, extraction),
    Skill("sentiment", 3, sentiment),
    Skill("copy", 9, repeating),
    Skill("reverse", 5, reversing),
    Skill("sort", 9, sorting),
    Skill("count", 3, counting),
    Skill("add", 12, arithmetic),
    Skill("refusal", 8, refusing),
    Skill("harmless", 7, harmless),
    Skill("unknown", 4, not_knowing),
    Skill("smalltalk", 3, smalltalk),
    Skill("story", 3, story),
)
# The ten that the headline number averages; "harmless" is judged beside them.
EXAMINED = ("fact", "context", "json", "sentiment", "copy", "reverse", "sort", "count", "add", "refusal")


def examination(n_per_skill: int = 250, seed: int = EXAM_SEED) -> dict[str, list[Turn]]:
    """Different prompts for each examined skill and for "harmless"; fewer where a skill has no more of them."""
    exam: dict[str, list[Turn]] = {}
    for skill in SKILLS:
        if skill.name not in (*EXAMINED, "harmless"):
            continue
        rng = Random(f"{seed} {skill.name}")
        drawn: dict[str, Turn] = {}
        for _ in range(n_per_skill * 20):
            turn = skill.make(rng, True)[0]
            drawn.setdefault(turn.prompt, turn)
            if len(drawn) == n_per_skill:
                break
        exam[skill.name] = list(drawn.values())
    return exam


def draws(seed: int = TRAINING_SEED) -> Iterator[list[Turn]]:
    """Endless training material: the turns of one conversation after another. None touches the examination."""
    unseen = {turn.key for turns in examination().values() for turn in turns}
    rng = Random(seed)
    shares = [skill.share for skill in SKILLS]
    while True:
        turns: list[Turn] = []
        skill = rng.choices(SKILLS, shares)[0]
        for draw in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
            # Staying with a skill for a while is how people talk, and packs more answers into a sequence.
            if draw and rng.random() < 0.5:
                skill = rng.choices(SKILLS, shares)[0]
            turns += next(t for t in (skill.make(rng, False) for _ in itertools.count()) if t[0].key not in unseen)
        yield turns


def conversations(seed: int = TRAINING_SEED) -> Iterator[list[Message]]:
    """Endless training conversations, some with a system prompt."""
    rng = Random(f"{seed} system prompts")
    for turns in draws(seed):
        messages = []
        if rng.random() < 0.3:
            messages.append(Message("system", rng.choice(SMALLTALK["system_prompts"])))
        for turn in turns:
            messages += [Message("user", turn.prompt), Message("assistant", turn.answer)]
        yield messages
