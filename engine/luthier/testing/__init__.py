"""What plugin authors test with: the conformance kit, contexts to call components with, and pytest fixtures.

`conformance` makes a test of every check and component of a plugin; `luthier.testing.fixtures` is the
pytest plugin. Importing this package loads no heavy library and not pytest either.
"""

from __future__ import annotations

from luthier.testing.conformance import conformance
from luthier.testing.contexts import make_context
from luthier.testing.data_components import ComponentRun, arguments, run_component

__all__ = ["ComponentRun", "arguments", "conformance", "make_context", "run_component"]
