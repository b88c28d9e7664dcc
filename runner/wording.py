"""What Hydra and OmegaConf refuse, in one sentence: which key, what was required, what was found, what to do."""

import difflib
import re
from dataclasses import fields
from pathlib import Path

from hydra.errors import HydraException

from runner.config import CONF_DIR, Config

KINDS = {"Float": "a number", "Integer": "an integer", "bool": "true or false"}
# What they say, and what is said instead.
SENTENCES = {
    r"Missing mandatory value: (\S+)": r"\1 should be given, found nothing: \1=…",
    r"Ambiguous value for argument '([^=]+)=(.*)'": (
        r"\1 should have one value, found \2; -m sweeps over several, \1=[\2] is one list"
    ),
    r"Error parsing override '(.*)'\s+missing EQUAL": r"what is given should read key=value, found '\1'",
    r"Could not (?:find|load) 'hydra/launcher/(submitit_local|submitit_slurm|joblib)'": (
        r"hydra/launcher: \1 comes with the extra [sweep]; pip install -e '.[sweep]' where this came from"
    ),
    r"Could not (?:find|load) 'hydra/launcher/(\S+)'": (
        r"hydra/launcher should be one of basic, joblib, slurm, submitit_local, submitit_slurm, found \1"
    ),
    r"Error merging override (\S+)\s+field '(\S+)' is not Optional": r"\2 should not be null, found \1; leave it out",
    r"Could not append to config. An item is already at '(\S+)'": r"\1 is a key already, found a + before it: \1=…",
}


def message(error: BaseException) -> str:
    """What was refused, in the words of the first who knew, without Hydra's and OmegaConf's coordinates."""
    cause = error.__cause__ if isinstance(error, HydraException) else None
    text = f"{error}\n{cause or ''}".split("Config search path")[0]
    text = re.sub(r"\w+ raised while resolving interpolation: ", "", text)
    for said in (_unknown_key, _known, _odd_value, _choice):
        if sentence := said(text):
            return sentence
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith(("full_key:", "object_type=", "reference_type="))]
    return "\n        ".join(dict.fromkeys(wanted))


def unknown(key: str) -> str:
    """What to say of a key that there is not."""
    return f"unknown key {key}{_meant(key)}; `python -m runner --cfg job` with the same groups lists all"


def _unknown_key(text: str) -> str:
    found = re.search(r"Key '(\S+)' (?:is not in struct|not in '\w+')\s+full_key: (\S+)", text)
    if not found:
        return ""
    if found[2] == f"probe.{found[1]}" and (Path(CONF_DIR) / "probe" / f"{found[1]}.yaml").exists():
        return f"{found[2]} needs the probe {found[1]} among those that measure, found others: probe=[…,{found[1]}]"
    return unknown(found[2])


def _known(text: str) -> str:
    found = (re.search(pattern, text) for pattern in SENTENCES)
    return next((one.expand(said) for one, said in zip(found, SENTENCES.values(), strict=True) if one), "")


def _odd_value(text: str) -> str:
    found = re.search(r"Error merging override \+*([^=\s]+)=(.*)\n", text)
    if not found:
        return ""
    key, value = found.groups()
    if kind := re.search(r"could not be converted to (\w+)|is not a valid (\w+)", text):
        named = kind[1] or kind[2]
        return f"{key} should be {KINDS.get(named, named)}, found {value}"
    if "is not a ListConfig" in text:
        return f"{key} should be a list, found {value}: {key}=[{value}]"
    return ""


def _choice(text: str) -> str:
    found = re.search(r"Could not (?:find|load) '(\w+)/(\S+)'", text)
    choices = sorted(path.stem for path in (Path(CONF_DIR) / found[1]).glob("*.yaml")) if found else []
    if not found or not choices:
        return ""
    alike = difflib.get_close_matches(found[2], choices, 1)
    hint = f" (did you mean {alike[0]}?)" if alike else ""
    return f"{found[1]} should be one of {', '.join(choices)}, found {found[2]}{hint}"


def _meant(key: str) -> str:
    """The keys that may have been meant."""
    where, _, last = key.rpartition(".")
    found = dict.fromkeys(_alike_in(where, last) if where else _alike(key))
    return f" (did you mean {' or '.join(found)}?)" if found else ""


def _alike(key: str) -> list[str]:
    """Keys at the top that are alike, and those of groups that have this name."""
    files = [path for path in Path(CONF_DIR).glob("*/*.yaml") if path.parent.name not in ("experiment", "probe")]
    groups = [f"{path.parent.name}.{key}" for path in files if re.search(rf"(?m)^{re.escape(key)}:", path.read_text())]
    return [*difflib.get_close_matches(key, [one.name for one in fields(Config)]), *groups]


def _alike_in(where: str, key: str) -> list[str]:
    """The key below `where`, a group or one of its choices, that is most alike."""
    group, *name = where.split(".")
    files = sorted(Path(CONF_DIR).glob(f"{group}/{name[0] if name else '*'}.yaml"))
    files += [Path(CONF_DIR) / "measure.yaml"] if group == "probe" else []
    keys = dict.fromkeys(one for path in files for one in re.findall(r"(?m)^(\w+):", path.read_text()))
    return [f"{where}.{one}" for one in difflib.get_close_matches(key, keys, 1)]
