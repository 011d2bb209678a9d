"""Finds the probes in this folder."""

from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

import embedtrain.evaluation.probes
from embedtrain.errors import UserError
from embedtrain.evaluation.probes.base import Finding, Probe, ProbeWish
from embedtrain.evaluation.tasks.subject import Subject


@lru_cache(maxsize=1)
def probe_kinds() -> dict[str, type[Probe]]:
    """Return every probe by its name."""
    for module in iter_modules(embedtrain.evaluation.probes.__path__):
        import_module(f"embedtrain.evaluation.probes.{module.name}")
    return {probe.name: probe for probe in sorted(Probe.__subclasses__(), key=lambda one: one.name)}


def run_probe(name: str, subject: Subject, wish: ProbeWish) -> list[Finding]:
    """Run a probe by its name.

    Raises:
        UserError: If there is none of that name, or it needs data that is not given.
    """
    probes = probe_kinds()
    if name not in probes:
        raise UserError("PROBE", "is unknown", got=name, cure=f"Use {', '.join(probes)}")
    probe = probes[name]
    if probe.needs_data and wish.data is None:
        raise UserError("--data", f"is needed: {probe.needs_data}", cure="Name it")
    if not (probe.needs_data or probe.takes_data) and wish.data is not None:
        raise UserError(
            "--data", f"is not used by {name}, which makes its own texts", got=str(wish.data)
        )
    return probe.run(subject, wish)
