"""How a licence stands in a model card's header: by an identifier of the hub's, or as `other` with its own name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from herd.errors import SettingError

# The identifiers that the hub takes (its documentation, page "Licenses"), without `other` and `unknown`.
_IDENTIFIERS = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa
unlicense zlib pddl lgpl-lr deepfloyd-if-license gemma llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
"""
KNOWN = frozenset(_IDENTIFIERS.split())


def header_of(licence: str) -> Mapping[str, str]:
    """The fields of a card's header for `licence`, which has passed `check_licence`."""
    if licence in KNOWN:
        return {"license": licence}
    return {"license": "other", "license_name": licence, "license_link": "LICENSE"}


def check_licence(licence: str, text: Path | None) -> None:
    """SettingError where the hub would refuse the card, or nobody could read the terms."""
    if licence in KNOWN:
        return
    if licence in ("other", "unknown") or not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise SettingError(
            f"'{licence}' names no licence",
            where="--licence",
            mend="an identifier of the hub's, e.g. apache-2.0, or a name of your own in lower case with --licence-file",
        )
    if text is None:
        raise SettingError(
            f"the hub knows no licence '{licence}'",
            where="--licence",
            mend="take one of its identifiers, e.g. apache-2.0, or give this one's text: --licence-file PATH",
        )
