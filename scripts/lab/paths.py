"""Where things are. No other file spells a path of the repository."""
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
RELEASE = Path(os.environ.get("SHUNT_BUILD", BUILD / "release"))
SHUNT = RELEASE / "bin" / "shunt"
LIBRARY = RELEASE / "lib" / "libshunt.so"
BENCH = RELEASE / "bin" / "shunt_bench"
CLIENTS = Path(__file__).resolve().parent / "clients"
HYPER_VENV = BUILD / "hyper-venv"
UNPACKED = BUILD / "unpacked"
SSHD = UNPACKED / "usr" / "sbin" / "sshd"
