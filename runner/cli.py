"""The command line: Hydra composes, one job at a time is executed, and the exit code says how it went."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from runner import cluster, sweep
from runner.config import CONF_DIR
from runner.errors import BadInput
from runner.jobs import Job
from runner.sweep import JobFailed
from runner.wording import message

REFUSED, FAILED = 2, 1


class Stopped(BaseException):
    """A signal ended a run in good order. Not an Exception, so that it ends a sweep too."""

    def __init__(self, code: int) -> None:
        self.code = code


class Carried(BaseException):
    """Carries an error past Hydra, which would add words of its own, or make a warning of it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def task(cfg: DictConfig) -> None:
    """One job, as Hydra calls it."""
    from rich.console import Console

    from runner import plan

    hydra_cfg = cast(DictConfig, HydraConfig.instance().cfg)
    if cfg.experiment and hydra_cfg.hydra.mode == RunMode.RUN:
        print(f"runner: one job of the experiment {cfg.experiment}; with -m all of its sweep", file=sys.stderr)
    folder, overrides = Path(hydra_cfg.hydra.runtime.output_dir), list(hydra_cfg.hydra.overrides.task)
    if cfg.plan:
        unmake(folder)
        try:
            plan.show([sweep.plain(cfg)], [folder.name.rpartition("-")[0] or folder.name], [folder], Console())
        except BadInput as error:
            raise Carried(error) from error
        return
    jobs_are_processes = "submitit" in launcher_of(hydra_cfg)
    if hydra_cfg.hydra.mode == RunMode.MULTIRUN and not jobs_are_processes:
        try:
            sweep.run_job(cfg, folder, overrides, hydra_cfg)
        except BaseException:
            unmake(folder)
            raise
        return
    run_here(cfg, folder, overrides, hydra_cfg)


def run_here(cfg: DictConfig, folder: Path, overrides: list[str], hydra_cfg: DictConfig) -> None:
    """A run in this process, told to its terminal."""
    from rich.console import Console

    from runner.display import Display
    from runner.job import execute
    from runner.summary import summarise

    begun: list[Display] = []  # nothing, if nothing is left to do

    def display(steps: int, start: int, path: Path) -> Display:
        begun.append(Display(steps, start, path))
        return begun[0]

    try:
        ended = execute(cfg, folder, overrides, hydra_cfg, display=display)
    except Exception as error:
        unmake(folder)
        if hydra_cfg.hydra.mode == RunMode.MULTIRUN:
            if not isinstance(error, BadInput):
                traceback.print_exception(error)
            said = f"{' '.join(overrides)}: {message(error)}"
            print(f"runner: {said}", file=sys.stderr)  # in the job's log; `main` says it where the job was submitted
            raise JobFailed(said) from error
        raise Carried(error) from error
    summarise(folder, ended, Console(), begun=bool(begun))
    if ended.status == "interrupted":
        if hydra_cfg.hydra.mode == RunMode.MULTIRUN:
            cluster.leave(ended.reason)
        raise Stopped(128 + signal.Signals[ended.reason])


def unmake(folder: Path) -> None:
    """Remove what Hydra made for a job that does not start, as far as it is empty: its folder, and those above it that
    are below the one where the program was called."""
    here, folder = Path.cwd(), folder.absolute()
    with suppress(OSError):
        for made in (folder, *(one for one in folder.parents if here in one.parents)):
            with suppress(FileNotFoundError):
                made.rmdir()


class Planned(BaseException):
    """A sweep was only to be planned. Carries its jobs past Hydra."""

    def __init__(self, jobs: list[Job], cfgs: list[DictConfig]) -> None:
        self.jobs, self.cfgs = jobs, cfgs

    def show(self) -> None:
        from rich.console import Console

        from runner import plan

        shared = sweep.shared(self.jobs)
        names = [
            " ".join(one for one in job.overrides if one not in shared and not one.startswith("seed=")) or "each seed"
            for job in self.jobs
        ]
        folders = [job.folder for job in self.jobs]
        plan.show([sweep.plain(cfg) for cfg in self.cfgs], names, folders, Console())


def launcher_of(cfg: DictConfig) -> str:
    return str(cfg.hydra.launcher._target_).lower()


class CheckSweep(Callback):
    """Before the first job of a sweep starts, every job is composed and its values are checked."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from rich.console import Console
        from rich.progress import track

        from runner.knobs import check_config

        loader = GlobalHydra.instance().config_loader()
        parser = OverridesParser.create(config_loader=loader)
        given = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)  # as the sweeper has them
        assert isinstance(given, list)
        keep_only_what_is_not_given(config, {one.key_or_group for one in parser.parse_overrides(given)})
        params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
        jobs: list[Job] = []
        cfgs: list[DictConfig] = []
        (sweep_overrides,) = BasicSweeper.split_arguments(parser.parse_overrides([*params, *given]), None)
        console = Console(stderr=True)  # Hydra takes a tenth of a second for each
        for overrides in track(
            sweep_overrides, "checking the jobs", console=console, disable=not console.is_terminal, transient=True
        ):
            try:
                job = loader.load_sweep_config(config, list(overrides))
                check_config(job)
            except (BadInput, HydraException, OmegaConfBaseException) as error:
                raise Carried(BadInput(f"{' '.join(overrides)}: {message(error)}")) from error
            folder = Path(str(job.hydra.sweep.dir)) / str(job.hydra.sweep.subdir)
            jobs.append(Job(overrides, folder.absolute()))
            cfgs.append(job)
        if config.plan:
            raise Planned(jobs, cfgs)
        each_with_a_folder(jobs)
        if launcher_of(config).endswith("slurmlauncher"):
            try:
                cluster.submitting(config, len(jobs))
            except BadInput as error:
                raise Carried(error) from error
        sweep.begin(jobs, config, own_processes="basic" in launcher_of(config))


def each_with_a_folder(jobs: Sequence[Job]) -> None:
    """Refuse jobs that are one run: how far it goes, and where, does not tell runs apart."""
    first: dict[Path, Job] = {}
    for job in jobs:
        other = first.setdefault(job.folder, job)
        if other is not job:
            raise Carried(
                BadInput(
                    f"jobs of a sweep should be different runs, found one as {' '.join(other.overrides)!r} and as "
                    f"{' '.join(job.overrides)!r}: sweep over what tells runs apart (not steps, epochs or device)"
                )
            )


def keep_only_what_is_not_given(config: DictConfig, given: set[str]) -> None:
    """A key of the command line takes the place of an experiment's own sweep over it; to Hydra they are two
    sweeps, whose product has every job several times."""
    params = config.hydra.sweeper.get("params")
    if params is not None:
        with open_dict(config), read_write(config):
            for key in given & set(params):
                del params[key]


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Let Hydra raise what it would otherwise print and exit with 1 for: the exit code tells things apart."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        raise Carried(BadInput(str(error)).with_traceback(error.__traceback__)) from error  # Hydra's, of the arguments
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def main() -> None:
    """`python -m runner`. Exit codes: 0 finished or diverged, 1 failed, 2 refused before any work, 128 + n stopped by
    signal n."""
    verbose = os.environ.get("HYDRA_FULL_ERROR") == "1"
    run: Callable[[], None] = hydra.main(config_path=CONF_DIR, config_name="config", version_base="1.3")(task)
    try:
        with _errors_raised():
            run()
        sweep.finish()
    except Planned as planned:
        try:
            planned.show()
        except BadInput as error:
            _report(error, verbose)
    except (Stopped, sweep.Interrupted) as stopped:
        sys.exit(stopped.code)
    except Carried as carried:
        _report(carried.error, verbose)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except JobFailed as failed:
        _fail(failed)
    except HydraException as error:  # some of Hydra's are OSErrors too
        _report(error, verbose)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _report(
            BadInput(f"the output folder cannot be written: {error}; see hydra.run.dir and hydra.sweep.dir"), verbose
        )
    except Exception as error:
        error = cluster.explained(error)
        if isinstance(error, JobFailed):
            _fail(error)
        _report(error, verbose)
    finally:
        sweep.report()


def _fail(failed: JobFailed) -> NoReturn:
    """A job failed; if it ran elsewhere, say why, otherwise it has said so."""
    if failed.args:
        print(f"runner: {failed}", file=sys.stderr)
    sys.exit(FAILED)


def _report(error: Exception, verbose: bool) -> NoReturn:
    """Say what went wrong and exit: one sentence for what was refused, a traceback for what broke."""
    refused = isinstance(error, BadInput | HydraException | OmegaConfBaseException)
    if verbose or not refused:
        traceback.print_exception(error)
    print(f"runner: {message(error)}", file=sys.stderr)
    sys.exit(REFUSED if refused else FAILED)
