"""A Griffe extension: the comment beside a dataclass field or a constant is its documentation.

`maps: int = 32  # D, base maps per group` appears in the reference with the text "D, base maps per group".
"""

import ast
import io
import re
import textwrap
import tokenize
from typing import Any

from griffe import Attribute, Docstring, Extension, ObjectNode

FOR_TOOLS = re.compile(r"noqa|type:|pragma")


class FieldComments(Extension):
    """Documents an attribute that has no docstring by the comment at the end of its line."""

    def on_attribute_instance(self, *, node: ast.AST | ObjectNode, attr: Attribute, **_: Any) -> None:
        """Griffe calls this for every attribute it reads."""
        if attr.docstring or not is_plain_assignment(node):
            return
        comment = trailing_comment(attr.source)
        if comment:
            attr.docstring = Docstring(comment, lineno=attr.endlineno, parent=attr)


def is_plain_assignment(node: ast.AST | ObjectNode) -> bool:
    """Whether the node assigns to one name, as a field or a constant does (`self.x = ...` does not)."""
    if isinstance(node, ast.AnnAssign):
        return isinstance(node.target, ast.Name)
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)


def trailing_comment(statement: str) -> str:
    """The comment on the last line of a statement, without its mark; empty if there is none or it is for a tool."""
    tokens = tokenize.generate_tokens(io.StringIO(textwrap.dedent(statement)).readline)
    comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    if not comments or not statement.rstrip().endswith(comments[-1]) or FOR_TOOLS.match(comments[-1]):
        return ""
    return comments[-1]
