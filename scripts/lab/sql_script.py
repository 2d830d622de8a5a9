"""Random SQL of which the answers are known without a database; PostgreSQL, MariaDB and HyPer all understand it."""
import hashlib
import random
import string


def _word(rng, longest):
    return "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randint(1, longest)))


def _statement(rng, largest):
    kind = rng.randrange(6)
    if kind == 0:
        a, b, c = (rng.randint(-40000, 40000) for _ in range(3))
        return f"select {a} * {b} + {c};", str(a * b + c)
    if kind == 1:
        word = _word(rng, 40)
        return f"select md5('{word}');", hashlib.md5(word.encode()).hexdigest()
    if kind == 2:  # a large answer
        word, times = _word(rng, 20), int(rng.uniform(1, largest ** 0.5 / 4) ** 2)
        return f"select repeat('{word}', {times});", word * times
    if kind == 3:  # a large question
        word = _word(rng, 50) * int(rng.uniform(1, largest ** 0.5 / 8) ** 2)
        return f"select md5('{word}');", hashlib.md5(word.encode()).hexdigest()
    if kind == 4:
        words = [_word(rng, 30) for _ in range(rng.randint(2, 8))]
        return f"select concat({', '.join(repr(word) for word in words)});", "".join(words)
    word = _word(rng, 200)
    return f"select length('{word}');", str(len(word))


def random_script(seed, statements, largest=100_000):
    """(script, expected output): one statement and one answer a line."""
    rng = random.Random(seed)
    pairs = [_statement(rng, largest) for _ in range(statements)]
    return "".join(f"{question}\n" for question, _ in pairs).encode(), "".join(f"{answer}\n" for _, answer in pairs).encode()


def random_rows(seed, rows):
    """Lines of `number,text` with numbers from 0 up, for bulk loading."""
    rng = random.Random(seed)
    return "".join(f"{number},{_word(rng, 120)}\n" for number in range(rows)).encode()


def first_difference(got, expected):
    """Empty when equal; else where and how two outputs differ, short enough to read."""
    if got == expected:
        return ""
    at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
    return (f"differs at byte {at} of {len(expected)} expected, {len(got)} got: "
            f"expected {expected[max(0, at - 20):at + 60]!r}, got {got[max(0, at - 20):at + 60]!r}")
