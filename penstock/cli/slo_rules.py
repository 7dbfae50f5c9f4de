"""Rules as the text of a file that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import yaml

from penstock.quality.alerts import Rule
from penstock.quality.rules import EVERY, rule_file
from penstock.quality.slo import Slo

_HEAD: Final = "# Written by `penstock slo rules`; do not edit: change penstock.yaml and write it anew.\n"


class _Plain(yaml.SafeDumper):
    """Without references to what was written before."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def written(slos: Iterable[Slo], rules: Iterable[Rule], every: float = EVERY) -> str:
    return _HEAD + yaml.dump(rule_file(slos, rules, every), Dumper=_Plain, sort_keys=False, width=1000)
