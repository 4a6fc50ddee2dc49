"""The embedded default: a procedural face over the Basel UV layout, its renderer, and a corpus in the 300W-LP layout.

No part of it is taken from the Basel Face Model or from photographs; only the layout of the UV plane is shared, so that
the same vertex index holds.
"""
