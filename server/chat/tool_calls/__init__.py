"""Tool calling: the tools of a request, and the formats in which models call them, one file per format."""

from server.chat.tool_calls.tool import Tool, ToolChoice, check_tools

__all__ = ["Tool", "ToolChoice", "check_tools"]
