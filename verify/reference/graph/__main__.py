"""Print the operations that the interpreter covers, as a Markdown table: python -m verify.reference.graph"""

from __future__ import annotations

from verify.reference.graph import operation_table


if __name__ == "__main__":
    print(operation_table(), end="")
