"""Griffe extension that documents a dataclass field or a constant by the comment beside it.

`maps: int = 32  # D, base maps per group` appears in the reference with the text "D, base maps per group".
"""

import ast
import io
import re
import textwrap
import tokenize
from typing import Any

from griffe import Attribute, Docstring, Extension, ObjectNode

FOR_TOOLS = re.compile(r"noqa|type:|pragma")  # comments that start with these are not documentation


class FieldComments(Extension):
    """Uses the comment at the end of its line for every attribute without a docstring."""

    def on_attribute_instance(self, *, node: ast.AST | ObjectNode, attr: Attribute, **_: Any) -> None:
        """Add the comment; Griffe calls this method for every attribute."""
        if attr.docstring or not is_plain_assignment(node):
            return
        comment = trailing_comment(attr.source)
        if comment:
            attr.docstring = Docstring(comment, lineno=attr.endlineno, parent=attr)


def is_plain_assignment(node: ast.AST | ObjectNode) -> bool:
    """Whether the node assigns to a name, as a field or a constant does; `self.x = ...` does not."""
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name)
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)


def trailing_comment(statement: str) -> str:
    """Return the comment at the end of a statement, or "" without one; comments for tools such as noqa do not count.

    >>> trailing_comment("maps: int = 32  # D, base maps")
    'D, base maps'
    """
    tokens = tokenize.generate_tokens(io.StringIO(textwrap.dedent(statement)).readline)
    comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    if not comments or not statement.rstrip().endswith(comments[-1]) or FOR_TOOLS.match(comments[-1]):
        return ""
    return comments[-1]
