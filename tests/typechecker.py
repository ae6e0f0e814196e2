"""The run-time type checker of the tests (see conftest.py): beartype, and an int will do for a float (PEP 484)."""

from beartype import BeartypeConf, FrozenDict, beartype
from pydantic import ValidationInfo

check = beartype(
    conf=BeartypeConf(
        is_pep484_tower=True,
        # a protocol that cannot be checked at run time, and stands in the signature of pydantic's validators
        hint_overrides=FrozenDict({ValidationInfo: object}),
    )
)
