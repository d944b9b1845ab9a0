"""Tools: what is offered, how each family of models is told of them, and how it calls them."""

from server.chat.tool_calls.tool import Tool, ToolChoice, check_tools, make_tool

__all__ = ["Tool", "ToolChoice", "check_tools", "make_tool"]
