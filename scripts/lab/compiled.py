"""Programs of clients/ that have to be compiled: once in a session, when the first server needs one."""
from . import paths


def _made(session, name, compile):
    if name not in session.templates:
        directory = session.directory(name)
        result = session.run(compile(directory))
        if result.status != 0:
            raise RuntimeError(f"cannot be compiled: {result}")
        session.templates[name] = directory
    return session.templates[name]


def java(session, name, *words):
    """The command that runs a Java program."""
    classes = _made(session, "java", lambda directory: ["javac", "-Xlint:all", "-Werror", "-d", directory, *sorted(paths.CLIENTS.glob("*.java"))])
    return ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xmx256m", "-cp", classes, name, *words]


def c(session, name, *libraries):
    """The file of a C program."""
    source = paths.CLIENTS / f"{name}.c"
    return _made(session, name, lambda directory: ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", directory / name, source, *libraries]) / name
