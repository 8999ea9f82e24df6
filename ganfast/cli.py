"""The command line: ``ganfast train | generate | project | directions | export | evaluate | report | …``.

Options are the fields of dataclasses, read by tyro. A mistake of the user's ends with one sentence and exit code 2.
"""

import contextlib
import dataclasses
import difflib
import errno
import functools
import io
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import tyro

from ganfast import __version__, terminal
from ganfast.errors import InputError

USAGE = f"""ganfast {__version__}: train GANs fast and right in PyTorch

  ganfast train RECIPE --data SRC    a GAN by one of the recipes below
  ganfast generate --network PATH    pictures from a trained generator
  ganfast project --network PATH     the latent codes of pictures
  ganfast directions --network PATH  what changes a class or attribute
  ganfast export --network PATH      the generator as ONNX
  ganfast evaluate RUN               how far a generator is from the data
  ganfast report RUN                 one page on a run, to read and to send
  ganfast design --network RUN       pictures made to please a user (dvbpr)
  ganfast animate RUN                a film of a run's samples over its steps
  ganfast data pack SRC DEST         decode a data set once, into one file
  ganfast demo xy                    a game of two players, and how it is won
  ganfast info                       versions, devices, the operators' backends

`ganfast COMMAND -h` lists the options of a command.

{{recipes}}"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a mistake of the user's, 130 after Ctrl-C."""
    terminal.open_streams()
    try:
        return run(sys.argv[1:] if argv is None else argv)
    finally:
        terminal.close_streams()


def run(argv: list[str]) -> int:
    try:
        command = choose(argv[0] if argv else "-h", COMMANDS, "command")
        if command is None:
            from ganfast.recipes import RECIPES

            print(USAGE.format(recipes=textwrap.fill(f"Recipes: {', '.join(RECIPES)}", 80, break_on_hyphens=False)))
            return 0
        command(argv[1:])
        return 0
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":  # torchrun's processes all fail alike
            say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `ganfast info | head`
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        where = f"{error.filename} " if error.filename else ""
        say(f"{where}cannot be written or read ({error.strerror}): make room or give another place.")
        return 2


def say(sentence: str) -> None:
    print(f"ganfast: {sentence}", file=terminal.Watched())


def choose(name: str, choices: dict, kind: str):
    """The choice called ``name``; None for a plea for help."""
    if name in ("-h", "--help"):
        return None
    if name not in choices:
        near = difflib.get_close_matches(name, choices, 1)
        hint = f"did you mean {near[0]}?" if near else f"give one of: {', '.join(choices)}."
        raise InputError(f"unknown {kind} {name!r}: {hint}")
    return choices[name]


def read_options(cls, argv: list[str], prog: str, default=None, pairs: bool = False):
    """Options of dataclass ``cls`` from ``argv``; with ``pairs`` every flag has its --no-flag.

    Values that ``__post_init__`` refuses raise its ``InputError``. What does not parse, and help, ends as tyro ends it.
    """
    config = (tyro.conf.DisallowNone, *(() if pairs else (tyro.conf.FlagCreatePairsOff,)))
    read = functools.partial(tyro.cli, cls, args=argv, prog=prog, default=default, config=config, registry=REGISTRY)
    silence = io.StringIO()
    try:
        with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
            return read()
    except SystemExit as error:
        reason = error.__context__
        while reason is not None and not isinstance(reason, InputError):
            reason = reason.__context__
        if reason is not None:
            raise reason from None
    return read()  # again, to print


REGISTRY = tyro.constructors.ConstructorRegistry()


@REGISTRY.primitive_rule
def size_option(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """--size, the only option that is a number or a word, has a name of its own in the help."""
    if info.type != int | str | None:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="N|WxH",
        instance_from_str=lambda words: int(words[0]) if words[0].isdecimal() else words[0],
        is_instance=lambda value: value is None or isinstance(value, (int, str)),
        str_from_instance=lambda value: [str(value)],
    )


# -- train -----------------------------------------------------------------------------------------------------------


def train(argv: list[str]) -> None:
    from ganfast.commands.outputs import refuse_as_data
    from ganfast.recipes import RECIPES
    from ganfast.training import Trainer
    from ganfast.training.options import GROUPS
    from ganfast.training.run_directory import next_name

    recipe_class = choose(argv[0] if argv else "-h", RECIPES, "recipe")
    if recipe_class is None:
        print("ganfast train RECIPE --data SRC [options], where RECIPE is one of\n")
        for name, each in RECIPES.items():
            width = max(shutil.get_terminal_size().columns, 40)
            said = " ".join((each.__doc__ or "").split())
            print(textwrap.fill(said, width, initial_indent=f"  {name:<11}", subsequent_indent=" " * 13))
        print("\n`ganfast train RECIPE -h` lists the options of a recipe.")
        return

    command, words = train_command(recipe_class), with_latest(argv[1:], recipe_class.name)
    stored = stored_defaults(words, recipe_class)
    default = command(**in_groups(stored[0]), recipe=stored[1]) if stored else None
    chosen = read_options(command, words, f"ganfast train {argv[0]}", default, pairs=stored is not None)
    options = {}
    for name in GROUPS:
        options |= vars(getattr(chosen, name))
    refuse_as_data(options["data"], "--data")
    refuse_as_data(options["data_b"], "--data-b")
    sources = [options.pop("data")]
    if stored and options["steps"] is None and options["kimg"] is None:
        options["steps"] = stored[2]
    trainer = Trainer(chosen.recipe, *sources, **options)
    if chosen.dry_run:
        trainer.refuse_finished()
        begun = trainer.resumed and trainer.resumed.is_newest() and trainer.resumed.run
        run = begun or Path(options["outdir"], next_name(Path(options["outdir"]), trainer.label))
        notes = [*trainer.data_notes(), *filter(None, [trainer.beside()])]
        print(f"{trainer.describe()}. It would write to {run}.", *notes, sep="\n")
    else:
        trainer.train()


def train_command(recipe_class) -> type:
    """A dataclass of all options, a field for each box of the help, the most used first."""
    from ganfast.training.options import GROUPS

    bare = tyro.conf.OmitArgPrefixes
    groups = [(name, bare[group]) for name, group in GROUPS.items()]
    named = Annotated[bare[recipe_class], tyro.conf.arg(name=recipe_class.name)]
    dry_run = Annotated[bool, tyro.conf.arg(aliases=["-n"], help="print what would be done, and do nothing")]
    fields = [*groups[:3], ("recipe", named), *groups[3:], ("dry_run", dry_run, False)]
    said = {"__doc__": f"Train {recipe_class.name}: the options by subject, the most used first."}
    return dataclasses.make_dataclass("Train", fields, kw_only=True, namespace=said)


def in_groups(options) -> dict:
    """TrainOptions as the groups that it is made of."""
    from ganfast.training.options import GROUPS

    given = dataclasses.asdict(options)
    return {
        name: group(**{field.name: given[field.name] for field in dataclasses.fields(group)})
        for name, group in GROUPS.items()
    }


def value_of(argv: list[str], flag: str) -> str | None:
    """What the last ``flag`` of ``argv`` says."""
    value = None
    for word, following in zip(argv, [*argv[1:], None]):
        if word == flag and following:
            value = following
        elif word.startswith(f"{flag}="):
            value = word.partition("=")[2]
    return value


def with_latest(argv: list[str], recipe: str) -> list[str]:
    """``argv`` with the run that ``--resume latest`` means, which is said."""
    from ganfast.training.run_directory import resumable

    if value_of(argv, "--resume") != "latest":
        return argv
    outdir = value_of(argv, "--outdir") or "runs"
    run = resumable(Path(outdir), recipe)
    if os.environ.get("RANK", "0") == "0":
        say(f"--resume latest is {run}, the newest run of {recipe} in {outdir}")
    return [*argv, "--resume", str(run)]


def stored_defaults(argv: list[str], recipe_class):
    """(options, recipe, steps) of the run that ``argv`` resumes, so that nobody types them again; else None."""
    from ganfast.training import TrainOptions
    from ganfast.training.run_directory import stored_options

    path = value_of(argv, "--resume")
    if path is None:
        return None
    name, recipe, options, steps = stored_options(Path(path))
    if name != recipe_class.name:
        raise InputError(
            f"{path} is of recipe {name}, not {recipe_class.name}: give ganfast train {name} --resume {path}."
        )
    try:
        options = TrainOptions(**options)
        recipe = recipe_class.from_options(recipe)
    except TypeError as error:
        raise InputError(f"{path} has options that this version of ganfast does not know ({error}).") from None
    return dataclasses.replace(options, kimg=None, steps=None), recipe, steps


# -- commands of one file each ----------------------------------------------------------------------------------------


def generate(argv: list[str]) -> None:
    from ganfast.commands.generate import Generate

    read_options(Generate, argv, "ganfast generate").run()


def project(argv: list[str]) -> None:
    from ganfast.commands.project import Project

    read_options(Project, argv, "ganfast project").run()


def directions(argv: list[str]) -> None:
    from ganfast.commands.directions import Directions

    read_options(Directions, argv, "ganfast directions").run()


def export(argv: list[str]) -> None:
    from ganfast.commands.export import Export

    read_options(Export, argv, "ganfast export").run()


def evaluate(argv: list[str]) -> None:
    from ganfast.commands.evaluate import Evaluate

    if value_of(argv, "--network"):
        raise InputError("--network: evaluate takes the run without a word before it: ganfast evaluate RUN.")
    read = functools.partial(read_options, Evaluate, argv, "ganfast evaluate", pairs=True)
    read(default=read().as_trained()).run()


def report(argv: list[str]) -> None:
    from ganfast.commands.report import Report

    read_options(Report, argv, "ganfast report").run()


def design(argv: list[str]) -> None:
    from ganfast.commands.design import Design

    read_options(Design, argv, "ganfast design").run()


def animate(argv: list[str]) -> None:
    from ganfast.commands.animate import Animate

    read_options(Animate, argv, "ganfast animate").run()


def data(argv: list[str]) -> None:
    from ganfast.commands.pack import Pack

    if choose(argv[0] if argv else "-h", {"pack": Pack}, "data command") is None:
        print("ganfast data pack SRC DEST    decode a data set once, into one file")
        return
    read_options(Pack, argv[1:], "ganfast data pack").run()


def demo(argv: list[str]) -> None:
    from ganfast.commands.demo import XYGame

    if choose(argv[0] if argv else "-h", {"xy": XYGame}, "demo") is None:
        print("ganfast demo xy    min over x, max over y of x·y: why gradient steps turn in circles, and what helps")
        return
    read_options(XYGame, argv[1:], "ganfast demo xy").run()


# -- info ------------------------------------------------------------------------------------------------------------


def info(argv: list[str]) -> None:
    """Versions, devices, and which backend each operator can use, or why not."""
    import platform

    import torch

    from ganfast import ops

    if argv and argv[0] not in ("-h", "--help", "--tuning"):
        raise InputError(f"ganfast info has no option {argv[0]!r}: give --tuning, or leave it out.")
    if argv[:1] == ["--tuning"]:
        tuning()
        return
    if argv:
        print("ganfast info    versions, devices, backends, and why one cannot be used")
        print("  --tuning      the way that was measured to be fastest, for each shape")
        return
    print(
        f"ganfast {__version__}, torch {torch.__version__}, Python {platform.python_version()}, {platform.platform()}"
    )
    print(f"CPU: {platform.processor() or platform.machine()}, torch uses {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        print(f"cuda:{index}: {device.name}, sm_{device.major}{device.minor}, {device.total_memory >> 30} GiB")
    if not torch.cuda.is_available():
        print(f"CUDA: not available ({'no device found' if torch.version.cuda else 'torch is a build without CUDA'})")
    backends(ops.table())


def backends(table: list[tuple]) -> None:
    """A line for each operator with what can run, the first choice first; then why the others cannot."""
    usable, reasons = {}, {}
    for op, device, name, answer in table:
        here = usable.setdefault(op, {"cuda": [], "cpu": []})[device]
        if answer is True:
            here.append(name)
        else:
            reasons.setdefault((device, answer), set()).add(name)
    print(f"\n{'operator':<34}{'on cuda':<26}on cpu")
    for op, on in usable.items():
        cuda, cpu = (", ".join(names) or "-" for names in on.values())
        print(f"{op:<34}{cuda:<26}{cpu}")
    print()
    for (device, reason), names in reasons.items():
        print(f"not on {device}: {', '.join(sorted(names))}: {reason}")


def tuning() -> None:
    """The measured choices of all environments in the file."""
    from ganfast.ops import _tuning

    rows = _tuning.table()
    print(f"{_tuning.path()}: {len(rows)} measured choices (delete it to measure again)")
    place = None
    for environment, key, choice, microseconds, failed in rows:
        if environment != place:
            place = environment
            print(f"\n{place}")
        times = ", ".join(f"{name} {median:g} µs" for name, median in sorted(microseconds.items(), key=lambda m: m[1]))
        print(f"  {choice:<12} {key}: {times}", *(f"{name} failed ({why})" for name, why in failed.items()), sep="; ")


COMMANDS = {
    "train": train,
    "generate": generate,
    "project": project,
    "directions": directions,
    "export": export,
    "evaluate": evaluate,
    "report": report,
    "design": design,
    "animate": animate,
    "data": data,
    "demo": demo,
    "info": info,
}

if __name__ == "__main__":
    sys.exit(main())
