"""How DVC reads what it is told, hashes files, notes which it uses, writes dvc.lock and starts stages. Seen in 3.67."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from stages.core.files import write_text
from stages.core.patches import replace

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

LOAD = "load_path"  # of dvc.dependency.param
PATHS = "dpath"  # the library as that module knows it
RUN = "_run"  # of dvc.stage.run
LOAD_FILE = "load_file"  # of dvc.dvcfile
DUMP = "dump_stages"  # of its Lockfile
LOCK_PATHS = "rwlock"  # of dvc.rwlock
HASH = "get_hash"  # of dvc.output.Output, by which it tells whether that changed
WRITES = ("run", "checkout")  # of dvc.stage.Stage, after which files may be others
RESET = "_reset"  # of dvc.repo.Repo: a command of DVC begins or ends
LOCK_HEAD = "schema: '2.0'\nstages:\n"
NEXT_STAGE = re.compile(r"\n  \S")


@contextmanager
def dvc_once() -> Iterator[None]:
    """Have DVC do once what it does again for each stage: all of the following but how stages are started."""
    with dvc_params(), dvc_files(), dvc_hashes(), dvc_path_locks(), dvc_locks():
        yield


@contextmanager
def dvc_params() -> Iterator[None]:
    """Have DVC parse params.yaml once for as long as it is the same file, and follow a key's path to its value.

    DVC parses it for every stage, and goes through all that a file has for every key. A build with nothing to do takes
    two thirds of the time then, and with a thousand models, time in proportion to them and not to their square.
    """
    import dpath
    from dvc.dependency import param

    load = getattr(param, LOAD)
    known: dict[tuple[str, int, int], Any] = {}

    def load_path(path: str, fs: Any, **settings: Any) -> Any:
        if settings or fs.protocol != "local":
            return load(path, fs, **settings)
        found = Path(path).stat()
        key = (str(path), found.st_mtime_ns, found.st_size)
        if key not in known:
            known[key] = load(path, fs)
        return known[key]

    def look_up(values: Any, path: str, *, separator: str) -> Any:
        found = values
        for key in path.split(separator):
            if not isinstance(found, dict) or key not in found:
                return dpath.get(values, path, separator=separator)
            found = found[key]
        return found

    paths = SimpleNamespace(get=look_up, search=dpath.search)
    with replace(param, LOAD, load_path), replace(param, PATHS, paths):
        yield


@contextmanager
def dvc_files() -> Iterator[None]:
    """Have DVC read a dvc.yaml, and what its templates iterate, once for as long as it is the same file.

    DVC reads it for each stage that it is told to build or to push.
    """
    from dvc import dvcfile

    load = getattr(dvcfile, LOAD_FILE)
    known: dict[tuple[str, int, int], Any] = {}

    def load_file(repo: Any, path: Any, **settings: Any) -> Any:
        if settings or not Path(path).is_file():
            return load(repo, path, **settings)
        key = (str(Path(path).absolute()), Path(path).stat().st_mtime_ns, id(repo))
        if key not in known:
            known[key] = load(repo, path)
        return known[key]

    with replace(dvcfile, LOAD_FILE, load_file):
        yield


@contextmanager
def dvc_hashes() -> Iterator[None]:
    """Have DVC hash a file or folder once until a stage was run or restored, however many stages depend on it.

    DVC goes through all files of stages/models for each of a hundred stages. What a stage used is hashed after it ran,
    as ever.
    """
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc.stage import Stage

    compute = getattr(Output, HASH)
    known: dict[tuple[str, str], Any] = {}

    def get_hash(output: Any) -> Any:
        if output.fs.protocol != "local":
            return compute(output)
        key = (output.fs_path, output.hash_name)
        if key not in known:
            known[key] = compute(output)
        return known[key]

    def forgetting(write: Callable[..., Any]) -> Callable[..., Any]:
        def forget(*arguments: Any, **settings: Any) -> Any:
            try:
                return write(*arguments, **settings)
            finally:
                known.clear()

        return forget

    with ExitStack() as stack:
        stack.enter_context(replace(Output, HASH, get_hash))
        for owner, name in ((Repo, RESET), *((Stage, name) for name in WRITES)):
            stack.enter_context(replace(owner, name, forgetting(getattr(owner, name))))
        yield


@contextmanager
def dvc_path_locks() -> Iterator[None]:
    """Have DVC note which paths a stage reads and writes once, not again in each function that the first one calls.

    Each time it reads, checks and writes all of .dvc/tmp/rwlock, twice.
    """
    from dvc import rwlock

    lock = getattr(rwlock, LOCK_PATHS)
    held: list[tuple[set[str], set[str]]] = []  # what may be read, and what written, by each function in another

    @contextmanager
    def lock_paths(
        folder: str, fs: Any, command: str, read: list[str], write: list[str], hardlink: Any
    ) -> Iterator[None]:
        reads, writes = {*read, *write}, {*write}
        if any(reads <= readable and writes <= writable for readable, writable in held):
            yield
            return
        with lock(folder, fs, command, read, write, hardlink):
            held.append((reads, writes))
            try:
                yield
            finally:
                held.pop()

    with replace(rwlock, LOCK_PATHS, lock_paths):
        yield


@contextmanager
def dvc_locks() -> Iterator[None]:
    """Have DVC write a stage's lines alone into the text of a dvc.lock, in one step that a kill cannot tear.

    DVC parses and writes all of a file for each stage: 20 ms for each stage that is in it.
    """
    from dvc.dvcfile import Lockfile

    with replace(Lockfile, DUMP, _lines_alone(getattr(Lockfile, DUMP))):
        yield


def _lines_alone(dump: Callable[..., None]) -> Callable[..., None]:
    """Return a function that leaves in a dvc.lock the text that `dump` of DVC does, which gets what is no such file."""
    from dvc import dvcfile

    def dump_stages(lock: Any, stages: Sequence[Any], **settings: Any) -> None:
        place = Path(lock.path)
        before = place.read_text(encoding="utf-8") if place.is_file() else ""
        if not before.startswith(LOCK_HEAD) or not before.endswith("\n") or "\ndatasets:" in before:
            return dump(lock, stages, **settings)
        text = before
        for stage in stages:
            text = _with_lines(text, _entry(dvcfile.serialize.to_lockfile(stage, **settings)))
        if text != before:
            dvcfile.logger.info("Updating lock file '%s'", lock.relpath)
            write_text(place, text)
            lock.repo.scm_context.track_file(lock.relpath)
        return None

    return dump_stages


def _entry(stage: dict[str, Any]) -> str:
    """Return the lines of a stage in a dvc.lock."""
    from dvc.utils.serialize import dumps_yaml

    text: str = dumps_yaml({"stages": stage})
    return text.partition("\n")[2]


def _with_lines(text: str, entry: str) -> str:
    """Return the text of a dvc.lock with the lines of a stage in the place of those that it had, or at the end."""
    name = entry.partition("\n")[0]
    begin = text.find(f"\n{name}\n") + 1
    if not begin:
        return text + entry
    following = NEXT_STAGE.search(text, begin + len(name))
    return text[:begin] + entry + (text[following.start() + 1 :] if following else "")


@contextmanager
def dvc_stages(start: Callable[[str, Sequence[str], str, Mapping[str, str]], BaseProcess]) -> Iterator[None]:
    """Have DVC run `python -m MODULE ARGUMENTS` as a process that `start` starts, and other commands as ever."""
    from dvc.stage import run
    from dvc.stage.exceptions import StageCmdFailedError

    run_in_shell = getattr(run, RUN)

    def run_command(executable: str, command: str, **settings: Any) -> None:
        python, *options = shlex.split(command)
        if [python, *options[:1]] != ["python", "-m"]:
            run_in_shell(executable, command, **settings)
            return
        process = start(options[1], options[2:], settings["cwd"], settings["env"])
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage gets it too, and ends as it does
        process.join()
        signal.signal(signal.SIGINT, handler)
        if process.exitcode:
            raise StageCmdFailedError(command, process.exitcode)

    with replace(run, RUN, run_command):
        yield
