"""Reads what src/interpose says of every call, for docs/generate, tools/check_symbols and tools/check_calls."""
import re
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SYMBOLS = ROOT / "src" / "interpose" / "symbols.def"
WAIVED = ROOT / "src" / "interpose" / "waived.def"
NUMBERS = ROOT / "src" / "interpose" / "syscalls.def"
WITHOUT = ROOT / "tools" / "libc_without_descriptors.txt"

Entry = namedtuple("Entry", "family macro name arguments")  # arguments: what follows the name, as text
Waiver = namedtuple("Waiver", "reason names")


class Unreadable(Exception):
    """A line of a table that is not as its first lines say."""


def _uses(path, macros):
    """(family, macro, text between the parentheses) for each use of one of the macros, in order; definitions left out."""
    text = re.sub(r"^#.*(?:\\\n.*)*", "", path.read_text(), flags=re.M)
    family, place = None, 0
    use = re.compile(rf"^(?:// (?P<family>[a-z ]+)$|(?P<macro>{'|'.join(macros)})\()", re.M)
    while found := use.search(text, place):
        place = found.end()
        if found["family"]:
            family = found["family"]
            continue
        end = re.compile(r"\)$", re.M).search(text, place)
        if not end:
            raise Unreadable(f"{path.name}: no end of {text[found.start():place + 40]}")
        yield family, found["macro"], " ".join(text[place:end.start()].split())
        place = end.end()


def _entries(path, macros):
    for family, macro, text in _uses(path, macros):
        found = re.fullmatch(r"(\w+)(?:, (.*))?", text)
        if not found or not family:
            raise Unreadable(f"{path.name}: cannot read {text}")
        yield Entry(family, macro, found[1], found[2] or "")


def _waivers(path, macro):
    for _, _, text in _uses(path, [macro]):
        found = re.fullmatch(r'"([^"]+)", (\w+(?:, \w+)*)', text)
        if not found:
            raise Unreadable(f"{path.name}: cannot read {text}")
        yield Waiver(found[1], found[2].split(", "))


def covered(path=SYMBOLS):
    return list(_entries(path, ["SHUNT_SYMBOL", "SHUNT_ALIAS", "SHUNT_OWN"]))


def words_of(entry):
    """What the library does in that function on a connection of ours."""
    if entry.macro == "SHUNT_ALIAS":
        return f"as {entry.arguments}"
    found = re.search(r'"([^"]+)"', entry.arguments)
    if not found:
        raise Unreadable(f"{entry.name}: no words")
    return found[1]


def waived():
    return list(_waivers(WAIVED, "SHUNT_WAIVED"))


def without_descriptor():
    """{family: names} of libc's functions that have nothing to do with descriptors."""
    families, family = {}, None
    for line in WITHOUT.read_text().splitlines():
        if line.startswith("## "):
            family = line[3:]
            families[family] = []
        elif line and not line.startswith("#"):
            families[family] += line.split()
    return families


def numbers():
    return list(_entries(NUMBERS, ["SHUNT_NUMBER", "SHUNT_NUMBER_WRAPPED", "SHUNT_NUMBER_MAKES", "SHUNT_NUMBER_BY_HAND"]))


def numbers_waived():
    return list(_waivers(NUMBERS, "SHUNT_NUMBER_WAIVED"))


def numbers_without():
    return [name for _, _, text in _uses(NUMBERS, ["SHUNT_NUMBER_WITHOUT"]) for name in text.split(", ")]
