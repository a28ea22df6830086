"""From tagged notebook cells to a Python package, and back.

The modules, in reading order: `files` (errors, writing all or nothing), `notebooks`
(what is in a notebook file), `book` (which notebooks, in which order), `names` (which
names a piece of Python binds and uses), `cells` (what an exported cell may hold),
`imports` (one sorted block of imports), `package` (notebooks to modules), `back`
(modules to notebooks), `where` (from a name to its page), `normalise` (notebooks
without their editor's noise).
"""
