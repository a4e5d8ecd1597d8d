"""The properties that every backend must have, for every mode, structure and dtype that it claims.

Each is a function of a backend under test and one example; Hypothesis, the test suite, `liquid-ssm certify` and the
pytest plugin all run these same functions.
"""

from .accuracy import ACCURACY
from .algebra import ALGEBRA
from .gradients import GRADIENTS
from .layout import LAYOUT
from .property import Property
from .time import TIME

PROPERTIES: tuple[Property, ...] = (*ACCURACY, *TIME, *ALGEBRA, *LAYOUT, *GRADIENTS)

__all__ = ["PROPERTIES", "Property"]
