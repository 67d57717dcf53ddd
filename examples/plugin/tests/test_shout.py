from __future__ import annotations

import luthier.testing

test_conformance = luthier.testing.conformance("shout")
